"""The Optuna backend: Optuna's samplers and pruners schedule trials that a `WorkerPool` runs.

All trials are enqueued when the study is created, so that their total does not depend on the number of
machines that share the study. Trials of the random and grid samplers are enqueued with their parameters; for
the model-based samplers, Optuna draws the parameters when a trial starts.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.common.redact import mask_url, redact
from shardwave.search.backends.optuna.owner import (
    STALE_SECONDS,
    Heartbeat,
    is_running,
    register_owner,
    unregister,
)
from shardwave.search.backends.optuna.parts import distributions, open_storage, optuna_module, pruner, sampler
from shardwave.search.backends.optuna.sqlite_lock import only_search_on
from shardwave.search.backends.random import final_result, fixed_point, run_in_pool
from shardwave.search.budget import DRAWN, SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, Params, SearchResult, Trial
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers.driver import Driver
from shardwave.search.workers.pool import WorkerPool

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"  # file in the run folder if no storage is given
POLL_SECONDS = 1.0  # interval between checks of other machines' trials


class OptunaBackend:
    """Search with Optuna.

    Samplers: TPE (multivariate or univariate), random, grid, GP, CMA-ES, QMC, PriorBand. Schedulers:
    successive halving, Hyperband, median, none. With the random and grid samplers, the parameters depend on
    the seed alone. With the other samplers and one job, the whole search depends on the seed and the version
    of Optuna.

    Args:
        storage: URL of a storage, see `open_storage`; machines with the same storage and study share the
            trials. None: a journal in the run folder, or in memory without a run folder.
        study: Name of the study; None: "search".

    Raises:
        UsageError: If `study` is given without `storage`.
    """

    name = "optuna"

    def __init__(self, storage: str | None = None, study: str | None = None) -> None:
        if study and not storage:
            raise UsageError("--study needs --storage URL: without it, the study is in the run folder")
        self._storage, self._study = storage, study or "search"

    def run(
        self,
        objective: Callable[..., None],
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog | None = None,
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        started = time.perf_counter()
        with only_search_on(self._storage), _storage_errors(self._storage):
            pool = WorkerPool(objective, budget)  # imports in the background while the study is opened
            driver = StudyDriver(
                self._storage, self._study, space, budget, seed, log, getattr(objective, "terms", {})
            )
            try:
                result = run_in_pool(objective, driver, budget, log, pool)
                driver.collect()
            finally:
                driver.close()
        seconds = time.perf_counter() - started
        return (
            final_result(log, seconds)
            if result.state != "INTERRUPTED"
            else SearchResult(result.state, log.trials, seconds)
        )


class StudyDriver(Driver):
    """Driver that takes trials from an Optuna study.

    Args:
        storage: URL of a storage, or None, see `OptunaBackend`.
        name: Name of the study.
        space: The search space.
        budget: The resolved budget.
        seed: Seed of the search.
        log: Log of the trials.
        objective_terms: Settings of the objective that must be equal on all machines of the study.

    Raises:
        UsageError: If the study has other settings.
        ShardwaveError: If the study cannot be opened or belongs to another program.
    """

    def __init__(
        self,
        storage: str | None,
        name: str,
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog,
        objective_terms: Mapping[str, object],
    ) -> None:
        self._space, self._budget, self._log, self._seed = space, budget, log, seed
        self._distributions = distributions(space)
        self._live: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}  # epochs reported to Optuna, by trial
        self._owner = register_owner()
        terms = {
            "space": {name: repr(dimension) for name, dimension in space.dimensions.items()},
            "fixed": dict(space.fixed),
            **objective_terms,
            **{
                key: getattr(budget, key)
                for key in ("epochs", "scheduler", "grace_period", "reduction_factor")
            },
        }
        self._alone = storage is None or storage.startswith("sqlite")  # see `only_search_on`
        if not self._alone:
            self.poll = POLL_SECONDS
        self._study, created = self._open(storage, name, seed)
        self._heartbeat = Heartbeat(self._study, self._owner)
        if created:
            for trial in log.trials:  # the storage was lost; this rebuilds the rungs of the pruner
                self._replay(trial)
            for assignment in log.unfinished():
                self._enqueue(assignment.trial, assignment.params, assignment.attempt)
            self._enqueue_missing(seed)
            self._study.set_user_attr("terms", terms)
        else:
            self._check(name, terms)
            self._retry_stale()
            self._enqueue_missing(seed)
            self.collect()

    def _open(self, storage: str | None, name: str, seed: int) -> tuple[optuna.Study, bool]:
        """Open or create the study, replacing a damaged one in the run folder; return whether it is new."""
        optuna = optuna_module()
        journal = self._log.folder / JOURNAL if self._log.folder else None
        parts = {"sampler": sampler(self._budget, self._space, seed, ""), "pruner": pruner(self._budget)}

        def create_or_load() -> tuple[Any, bool]:
            opened = self._storage = open_storage(storage, journal)
            try:
                return optuna.create_study(
                    storage=opened, study_name=name, direction="maximize", **parts
                ), True
            except optuna.exceptions.DuplicatedStudyError:
                study = optuna.load_study(storage=opened, study_name=name, **parts)
            if self._alone and storage is not None and self._was_left_unfinished(study):
                optuna.delete_study(storage=opened, study_name=name)
                return create_or_load()
            return study, False

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                study, created = create_or_load()
                defect = None if created or storage is not None else self._defect(study)
            except Exception as error:  # of a database driver, or of Optuna for a damaged journal
                if isinstance(error, ShardwaveError) or (storage is None and isinstance(error, OSError)):
                    raise
                if storage is not None:
                    raise ShardwaveError(_message(storage, error)) from error
                defect = f"is damaged ({' '.join(str(error).split()) or type(error).__name__})"
            if defect is None or journal is None:
                return study, created
            os.replace(journal, journal.with_name(f"{JOURNAL}.damaged"))
            say(
                f"{journal} {defect}: the study is rebuilt from trials.jsonl; the old file is now "
                f"{JOURNAL}.damaged"
            )
            return create_or_load()

    def _was_left_unfinished(self, study: optuna.Study) -> bool:
        """Return whether a search was killed before it stored the settings of the study."""
        ours = all("trial" in trial.user_attrs for trial in study.get_trials(deepcopy=False))
        return ours and "terms" not in study.user_attrs and study.user_attrs.keys() <= {"terms"}

    def _defect(self, study: optuna.Study) -> str | None:
        """Return the defect of the study in the run folder (after a kill or on a full disk), or None."""
        if "terms" not in study.user_attrs:
            return "was not completed"
        rows = (
            trial.user_attrs.get("row")
            for trial in study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        )
        missing = self._log.finished.keys() - {row["trial"] for row in rows if row is not None}
        return f"lacks the trials {', '.join(map(str, sorted(missing)))}" if missing else None

    def _check(self, name: str, terms: Mapping[str, object]) -> None:
        """Wait until the settings of the study are stored, and raise if they differ from `terms`."""
        for _ in range(1 if self._alone else 300):
            stored = self._study.user_attrs.get("terms")
            if stored is not None:
                break
            time.sleep(0.1)
        else:
            raise ShardwaveError(
                f"study {name} is not of this program, or its creation was interrupted; use another "
                "--study name"
            )
        different = [
            f"{key} {stored.get(key)} (there) and {value} (here)"
            for key, value in terms.items()
            if stored.get(key) != value
        ]
        if different:
            kind = "of another set" if stored.get("set id") != terms.get("set id") else "another search"
            raise UsageError(
                f"study {name} is {kind}: {'; '.join(different)}; use its settings or another --study name"
            )

    def _enqueue(self, number: int, params: Params | None, attempt: int = 1) -> None:
        searched = {name: value for name, value in (params or {}).items() if name in self._space.dimensions}
        self._study.enqueue_trial(searched, user_attrs={"trial": number, "attempt": attempt})

    def _enqueue_missing(self, seed: int) -> None:
        """Enqueue a trial for every number that has none."""
        states = optuna_module().trial.TrialState
        enqueued = {
            trial.user_attrs.get("trial")
            for trial in self._study.get_trials(deepcopy=False)
            if not _discarded(trial, states)
        }
        fixed_points = self._budget.sampler in DRAWN
        for number in range(self._budget.trials):
            if number not in enqueued:
                if fixed_points:
                    self._enqueue(number, fixed_point(self._space, self._budget, number, seed))
                else:
                    self._enqueue(number, self._space.first_trial(number, self._budget.first_trial))

    def _replay(self, recorded: Trial) -> None:
        self._enqueue(recorded.trial, recorded.params, recorded.attempt)
        live = self._study.ask(self._distributions)
        for epoch, value in enumerate(recorded.values, 1):
            live.report(value, epoch)
            live.should_prune()
        self._live[recorded.trial] = live
        self.end(recorded)

    def _retry_stale(self) -> None:
        """Mark trials of ended searches as failed, and enqueue them again with the same numbers."""
        optuna = optuna_module()
        state = optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            process = trial.user_attrs.get("owner")
            if process is None:
                age = time.time() - (trial.datetime_start.timestamp() if trial.datetime_start else 0)
                stale = self._alone or age > STALE_SECONDS
            else:
                stale = self._alone or not is_running(process) or self._heartbeat.is_stale(process)
            if stale:
                row = trial.user_attrs.get("row")  # set if the trial had ended before its process died
                try:
                    self._tell(trial.number, row["state"] if row else "FAILED", row["value"] if row else None)
                except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                    continue  # another machine has done it
                if row is None and (number := trial.user_attrs.get("trial")) is not None:
                    # `trial.params` may be incomplete
                    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
                    self._enqueue(number, params, trial.user_attrs.get("attempt", 1) + 1)

    def tick(self) -> None:
        """See `Driver`: writes a heartbeat."""
        if self.poll is not None:
            self._heartbeat.beat()

    def expects_more(self) -> bool:
        """See `Driver`; True while other machines run trials, since they may fail to end them."""
        if self.poll is None:
            return False
        state = optuna_module().trial.TrialState
        self._retry_stale()
        self.collect()
        own_numbers = {live.number for live in self._live.values()}
        unfinished = self._study.get_trials(deepcopy=False, states=(state.RUNNING, state.WAITING))
        return any(trial.number not in own_numbers for trial in unfinished)

    def ask(self) -> Assignment | None:
        """See `Driver`."""
        state = optuna_module().trial.TrialState
        waiting = self._study.get_trials(deepcopy=False, states=(state.WAITING,))
        if not waiting:
            return None
        # a new sampler per trial, so that resumed searches and other machines draw different starting points
        suffix = "" if self._alone else f" {self._owner['search']}"
        self._study.sampler = sampler(
            self._budget, self._space, self._seed, f" {waiting[0].user_attrs.get('trial')}{suffix}"
        )
        live = self._study.ask(self._distributions)
        number = live.user_attrs.get("trial")
        if number is None:  # another machine took the last enqueued trial
            self._study.tell(live, state=state.FAIL)
            return None
        live.set_user_attr("owner", self._owner)
        self._live[number] = live
        return Assignment(number, {**live.params, **self._space.fixed}, live.user_attrs["attempt"])

    def report(self, trial: Trial) -> bool:
        """See `Driver`."""
        live = self._live[trial.trial]
        if trial.epochs <= self._reported.get(trial.trial, 0):  # already reported by an earlier attempt
            return False
        self._reported[trial.trial] = trial.epochs
        try:
            live.report(trial.values[-1], trial.epochs)
        except optuna_module().exceptions.UpdateFinishedTrialError:
            return True  # another search considered this one dead and took the trial
        return live.should_prune()

    def end(self, trial: Trial) -> None:
        """See `Driver`."""
        live = self._live.pop(trial.trial)
        try:
            live.set_user_attr("row", trial.row())
        except optuna_module().exceptions.UpdateFinishedTrialError:
            return  # see `report`
        self._tell(live, trial.state, trial.value)

    def _tell(self, trial: optuna.Trial | int, ended: str, value: float | None) -> None:
        state = optuna_module().trial.TrialState
        if ended == "COMPLETE":
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=state.PRUNED if ended == "PRUNED" else state.FAIL)

    def close(self) -> None:
        """Unregister the search, so that other searches repeat its running trials, and close the storage."""
        unregister(self._owner)
        if hasattr(self._storage, "engine"):  # of a database
            self._storage.remove_session()
            self._storage.engine.dispose()  # before the lock of a SQLite file is released

    def collect(self) -> None:
        """Add the trials that other machines finished to the log."""
        for trial in self._study.get_trials(deepcopy=False):
            row = trial.user_attrs.get("row")
            if row is not None and trial.state.is_finished() and row["trial"] not in self._log.finished:
                self._log.add(Trial.from_row(row))


@contextlib.contextmanager
def _storage_errors(storage: str | None) -> Iterator[None]:
    """Convert errors of a database or proxy during a search to a ShardwaveError that names the storage."""
    try:
        yield
    except ShardwaveError:
        raise
    except Exception as error:
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
        if not kinds & {"optuna.OptunaError", "sqlalchemy.SQLAlchemyError", "grpc.RpcError"}:
            raise
        raise ShardwaveError(
            f"{_message(storage, error)}; continue with --resume when it is available"
        ) from error


def _message(storage: str | None, error: BaseException) -> str:
    """Return the storage and the messages of an error and its cause, without passwords."""
    if storage is None:
        return f"the study in the run folder: {' '.join(str(error).split())[:300]}"
    message = f"{error} {error.__cause__ or ''}"
    return f"--storage {mask_url(storage)}: {redact(' '.join(message.split()), storage)[:300]}"


def _discarded(trial: optuna.trial.FrozenTrial, states: Any) -> bool:
    """Return whether a trial failed because the driver marked it as stale or surplus."""
    return trial.state == states.FAIL and "row" not in trial.user_attrs
