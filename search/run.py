"""The hyper-parameter search: runs the trials and writes a run folder."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.common.progress import bar
from shardwave.common.redact import mask_url
from shardwave.models.data.balance import warn_of_imbalance
from shardwave.models.data.splits import resolve
from shardwave.models.runs import clip_table
from shardwave.models.runs.records import RunResult
from shardwave.models.runs.result import Result, earlier_seconds, open_run
from shardwave.models.training.config import field_of
from shardwave.models.training.interruption import sigterm_as_interrupt
from shardwave.models.training.tracking import check_logger
from shardwave.search import outcome
from shardwave.search.auto import Algorithms
from shardwave.search.backends.registry import make_backend
from shardwave.search.config import SearchConfig
from shardwave.search.objective import TrainingObjective
from shardwave.search.space import space_for
from shardwave.search.tracking import tracked
from shardwave.search.trial import Trial, best_trial
from shardwave.search.trial_log import KEPT, TrialLog
from shardwave.search.workers.worker import threads_per_trial
from shardwave.shards.format.layout import located
from shardwave.shards.read.open_set import open_set

_log = logging.getLogger(__name__)
# settings that a resumed search may change; the space itself is compared separately
_FREE = ("trials", "jobs", "device", "storage", "address", "fused", "gpus_per_trial", "space", "logger")


def search(set_path: Path | str, config: SearchConfig, out: Path | str, resume: bool = False) -> RunResult:
    """Search the hyper-parameters of a model on a shard set.

    Args:
        set_path: Path or URL of the shard set.
        config: Settings of the search.
        out: The run folder.
        resume: Continue the search in `out`: finished trials are kept, interrupted trials run again.

    Returns:
        The content of result.json.

    Raises:
        UsageError: If a setting is invalid, or differs from those of the resumed search.
        ShardwaveError: If all trials failed, or the search could not continue.
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after a result with the state INTERRUPTED was written.
    """
    started = time.perf_counter()
    set_path, out = located(set_path), Path(out).resolve()
    if isinstance(set_path, Path):
        set_path = set_path.resolve()
    check_logger(config.logger)
    budget, space, training = config.budget(), space_for(config.model, config.space), config.training()
    chosen = config.choose(budget.jobs or 1) if config.is_auto else None
    training = dataclasses.replace(training, inputs=space.first("inputs", training.inputs))
    backend = make_backend(config.backend, storage=config.storage, study=config.study, address=config.address)
    shard_set = open_set(set_path)
    folds = resolve(shard_set.splits, config.val_fold, config.test_fold)
    with open_run(out, resume) as earlier, sigterm_as_interrupt():
        if chosen is not None and earlier is not None and "choice" in earlier:
            # the numbers of trials and jobs may have changed since
            chosen = Algorithms(**earlier["choice"])
            budget = config.budget(chosen)
        clips = clip_table.clip_table(shard_set, field_of(training))
        warn_of_imbalance(shard_set, training)
        fields = {
            "model": config.model,
            "params": None,
            "seed": config.seed,
            "config": _plain(config),
            "space": space.describe(),
            **clip_table.set_fields(shard_set, clips),
            "folds": folds._asdict(),
            "select_metric": config.select_metric,
            "backend": config.backend,
            **{name: getattr(budget, name) for name in ("sampler", "scheduler", "jobs")},
            **({} if chosen is None else {"choice": dataclasses.asdict(chosen)}),
            "started": time.time() if earlier is None else earlier.get("started", time.time()),
            "seconds": {} if earlier is None else earlier.get("seconds", {}),
        }
        if earlier is not None:
            _check_same(earlier, fields)
            clip_table.check_same_set(earlier, out, shard_set, field_of(training))
            if earlier["state"] == "COMPLETE" and earlier["trials"] >= budget.trials:
                return earlier
            outcome.keep_published(out, earlier)
        if chosen is not None:
            say(f"auto: {chosen.reason}")
        seconds_before = earlier_seconds(earlier)
        clips.write(out)
        objective = TrainingObjective(set_path, training, out, config.is_fused())
        fields["threads"] = threads_per_trial(objective, budget.jobs or 1)  # of each trial
        threading.Thread(target=_import_modules).start()
        with Result(out, "search", **fields) as result:
            with (
                bar(
                    total=budget.trials, desc=f"{config.model}, {config.backend}", unit="trial", every=1
                ) as progress,
                tracked(config.logger, out, _plain(config), Progress(progress)) as listener,
            ):
                log = TrialLog(out)
                log.listener = KeptFiles(out, log, listener)
                outcome.remove_leftovers(out, log.trials)
                on_gpu = dataclasses.replace(training, device="cuda")  # trials with a GPU never use the CPU
                trained = (
                    dataclasses.replace(objective, config=on_gpu) if budget.gpus_per_trial else objective
                )
                searched = backend.run(trained, space, budget, config.seed, log)
            total = seconds_before + time.perf_counter() - started
            result.add(outcome.summary(searched.trials, budget, total))
            if searched.state == "FAILED":
                raise ShardwaveError(f"{searched.error}; see {out / 'trials.jsonl'}")
            complete = searched.state == "COMPLETE"
            result.add(outcome.best_run(objective, searched, out, retrain=complete))
            outcome.draw(out, result.fields, searched.trials, space)
            result.fields["seconds"]["total"] = seconds_before + time.perf_counter() - started
            if searched.state == "INTERRUPTED":
                raise KeyboardInterrupt
        shutil.rmtree(out / KEPT, ignore_errors=True)  # after result.json is written
        return result.fields


class KeptFiles:
    """Listener of a `TrialLog` that removes superseded checkpoints when a trial has ended."""

    def __init__(self, out: Path, log: TrialLog, listener: Callable[[Trial], None]) -> None:
        self._out, self._log, self._listener = out, log, listener

    def __call__(self, trial: Trial) -> None:
        """Call the next listener, and remove files if `trial` has ended."""
        self._listener(trial)
        if trial.state != "RUNNING":
            outcome.remove_superseded(self._out, self._log.finished)


class Progress:
    """Listener of a `TrialLog` that shows the number of ended trials and the best value in a progress bar."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._ended: dict[int, Trial] = {}

    def __call__(self, trial: Trial) -> None:
        """Update the bar if `trial` has ended."""
        if trial.state == "RUNNING" or trial.trial in self._ended:
            return
        self._ended[trial.trial] = trial
        summary = f"{trial.epochs} epochs in {trial.seconds:.1f} s, best value {trial.value}, {trial.params}"
        _log.info("trial %d %s: %s", trial.trial, trial.state, trial.error or summary)
        best = best_trial(list(self._ended.values()))
        if best is not None:
            self._progress.set_postfix(best=f"{best.value:.4f}", trial=best.trial, refresh=False)
        self._progress.update()


def _import_modules() -> None:
    """Import the modules used at the end of the search; a thread does this while the workers train."""
    import shardwave.models.evaluation.held_out
    import shardwave.models.runs.figures
    import shardwave.search.figures  # noqa: F401


def _plain(config: SearchConfig) -> dict[str, object]:
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
    }
    if isinstance(config.space, Mapping):
        plain["space"] = "given in Python"
    return {**plain, "storage": config.storage and mask_url(config.storage)}


def _check_same(earlier: RunResult, fields: dict[str, Any]) -> None:
    """Raise UsageError if the settings or the space of a resumed search have changed."""
    if earlier.get("command") != "search":
        raise UsageError(
            f"--resume: the run folder contains a run of `{earlier.get('command')}`, not `search`; use "
            "another --out"
        )
    was, now = earlier["config"], fields["config"]
    for name in now:
        if name not in _FREE and was.get(name) != now[name]:
            changed = f"with {name} {was.get(name)}, not {now[name]}"
            raise UsageError(
                f"--resume: the search was started {changed}; use the same options or another --out"
            )
    if earlier["space"] != fields["space"]:
        raise UsageError(
            f"--resume: the search was started with another space ({earlier['space']}, now "
            f"{fields['space']}); use another --out"
        )
