"""Results of a search: summary, checkpoint and scores of the best trial, figures."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from shardwave.common import typed
from shardwave.common.messages import say
from shardwave.models.runs.records import BestTrial, Epochs, HistoryEntry, Matrix, RunResult, Scores, scores
from shardwave.search.budget import SearchBudget
from shardwave.search.objective import TrainingObjective
from shardwave.search.space import Space
from shardwave.search.trial import Params, SearchResult, Trial, best_trial
from shardwave.search.trial_log import KEPT
from shardwave.shards.storage import atomic

CHECKPOINT = "checkpoint.ckpt"
KEPT_FILE = re.compile(r"trial-(\d+)\.(ckpt|json)")
TEMPORARY = re.compile(r"\.(result\.json|checkpoint\.ckpt|[a-z]+\.png|trial-\d+\.(ckpt|json))(\.\d+)?\.tmp")


class KeptTrial(TypedDict):
    """Content of `trial-<n>.json`, which `TrainingObjective.keep` writes."""

    epoch: typed.Count
    selected: str
    history: list[HistoryEntry]
    parameters: typed.Count


class Summary(TypedDict):
    """Fields of result.json that depend on the trials alone."""

    trials: int
    states: dict[str, int]
    best: BestTrial | None
    params: Params | None
    epochs: Epochs
    seconds: dict[str, float]


class BestRun(TypedDict, total=False):
    """Fields of result.json that describe the training of the best trial."""

    best_epoch: int | None
    scores: Scores
    per_class: dict[str, Any]
    confusion: dict[str, Matrix]
    selected_by: str
    history: list[HistoryEntry]
    parameters: int


def summary(trials: Sequence[Trial], budget: SearchBudget, total: float) -> Summary:
    """Return the fields of result.json that depend on the trials alone.

    Args:
        trials: The trials that ended.
        budget: The resolved budget.
        total: Wall time of the command, in seconds.

    Returns:
        The fields; `seconds.overhead` is total - (step + validation) / jobs.
    """
    spent = {
        kind: sum(trial.spent.get(kind, 0.0) for trial in trials)
        for kind in ("step", "validation", "data_wait")
    }
    run = sum(trial.epochs for trial in trials)
    useful = sum(trial.epochs for trial in trials if trial.state != "FAILED")
    best = best_trial(trials)
    busy = (spent["step"] + spent["validation"]) / (budget.jobs or 1)
    return {
        "trials": len(trials),
        "states": dict(Counter(trial.state for trial in trials)),
        "best": None if best is None else _best(best),
        "params": None if best is None else best.params,
        "epochs": {
            "run": run,
            "saved": budget.epochs * sum(trial.state != "FAILED" for trial in trials) - useful,
        },
        "seconds": {"total": total, **spent, "overhead": total - busy},
    }


def _best(trial: Trial) -> BestTrial:
    assert trial.value is not None and trial.best_epoch is not None
    return {"trial": trial.trial, "params": trial.params, "value": trial.value, "epoch": trial.best_epoch}


def remove_leftovers(out: Path, trials: Sequence[Trial]) -> None:
    """Remove temporary files and superseded checkpoints of a killed search from its run folder.

    Args:
        out: The run folder; the caller holds its lock.
        trials: The trials that ended; the checkpoint of the best one is kept.
    """
    best = best_trial(trials)
    keep = {f"trial-{best.trial}.ckpt", f"trial-{best.trial}.json"} if best else set()
    for folder, unwanted in ((out, TEMPORARY), (out / KEPT, KEPT_FILE)):
        if folder.is_symlink() or not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                stale = TEMPORARY.fullmatch(entry.name) or unwanted.fullmatch(entry.name)
                if stale and entry.name not in keep and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)


def remove_superseded(out: Path, finished: Mapping[int, Trial]) -> None:
    """Remove the kept checkpoints of ended trials, except that of the best one.

    Args:
        out: The run folder; the caller holds its lock.
        finished: The trials that ended, by number; all of them are in the log.
    """
    folder, best = out / KEPT, best_trial(list(finished.values()))
    if folder.is_symlink() or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = KEPT_FILE.fullmatch(entry.name)
            number = int(name[1]) if name else None
            superseded = number in finished and (best is None or number != best.trial)
            if superseded and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def keep_published(out: Path, earlier: RunResult) -> None:
    """Make the checkpoint of a COMPLETE search a kept one, so that a resumed search can publish it again.

    Args:
        out: The run folder; the caller holds its lock.
        earlier: Content of result.json.
    """
    best, epoch = earlier.get("best"), earlier.get("best_epoch")
    if earlier["state"] != "COMPLETE" or not best or not epoch or not (out / CHECKPOINT).exists():
        return
    kept = out / KEPT / f"trial-{best['trial']}"
    kept.parent.mkdir(exist_ok=True)
    record: KeptTrial = {
        "epoch": epoch,
        "selected": earlier["selected_by"],
        "history": earlier["history"],
        "parameters": earlier["parameters"],
    }
    atomic.write_json(kept.with_suffix(".json"), record)
    _copy(out / CHECKPOINT, kept.with_suffix(".ckpt"))


def _copy(source: Path, target: Path) -> None:
    """Replace `target` by a hard link to `source`, or by a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # left by `replace` if both are links to one file already


def best_run(objective: TrainingObjective, searched: SearchResult, out: Path, *, retrain: bool) -> BestRun:
    """Write the checkpoint of the best trial to the run folder.

    The checkpoint of a trial that ran on another machine of a shared study is in the run folder there. The
    trial is trained again here, and a message and the scores tell the result.

    Args:
        objective: Objective of the search.
        searched: Result of the search.
        out: The run folder.
        retrain: Train the best trial again if its checkpoint is missing, score the checkpoint on the test
            clips and write its predictions of the held-out clips; False for an interrupted search.

    Returns:
        The fields of result.json that describe the training; empty if no trial succeeded.
    """
    best = searched.best
    if best is None:
        return {}
    kept = out / KEPT / f"trial-{best.trial}"
    fields: BestRun = {"best_epoch": best.best_epoch, "scores": best.info.get("scores", {})}
    if not kept.with_suffix(".ckpt").exists() and retrain:
        config = dataclasses.replace(objective.config_of(best.trial, best.params), stop_after=best.best_epoch)
        local = dataclasses.replace(objective)  # has no kept trial yet, so it keeps this one
        again = local.fit(config)
        local.keep(best.trial, config, again)
        say(
            f"the weights of trial {best.trial} are not in {out} (it ran as {best.worker}): it was trained "
            f"again and has the value {again.value:.4f}; the trial had {best.value:.4f}"
        )
        fields["best_epoch"] = again.best_epoch
        fields["scores"] = scores(again.history[again.best_epoch - 1])
    if kept.with_suffix(".ckpt").exists():
        record = typed.read(
            kept.with_suffix(".json"), KeptTrial, f"remove {kept.parent}: the trial is then trained again"
        )
        for entry in record["history"]:
            if entry["epoch"] == record["epoch"] and "per_class" in entry and "confusion" in entry:
                fields |= {"per_class": entry["per_class"], "confusion": entry["confusion"]}
        fields |= {
            "selected_by": record["selected"],
            "history": record["history"],
            "parameters": record["parameters"],
        }
        _copy(kept.with_suffix(".ckpt"), out / CHECKPOINT)
        if retrain:
            _score(objective, out, fields)
    return fields


def _score(objective: TrainingObjective, out: Path, fields: BestRun) -> None:
    """Predict the validation and test clips by the checkpoint in `out`; add the scores of the latter."""
    from shardwave.models.evaluation.evaluate import score
    from shardwave.models.evaluation.held_out import write_predictions_and_errors
    from shardwave.models.runs import checkpoint

    trained = checkpoint.load(out / CHECKPOINT)
    data = objective.data_of(trained.config)
    test = score(trained.head, data.test_batches(), "test", data.field, data.device, trained.config.precision)
    write_predictions_and_errors(out, data, trained, test.predictions)
    fields["scores"] = {**fields.get("scores", {}), **test.scores}
    fields["per_class"] = {**fields.get("per_class", {}), **test.per_class}
    fields["confusion"] = {**fields.get("confusion", {}), **test.confusion}


def draw(out: Path, result: RunResult, trials: Sequence[Trial], space: Space) -> None:
    """Write the figures of the search and of the training of its best trial.

    Args:
        out: Folder of the figures.
        result: Fields of result.json.
        trials: The trials that ended.
        space: The search space.
    """
    from shardwave.models.runs import figures as training_figures
    from shardwave.search import figures

    title = f"{result['model']} on {Path(result['set']).name}, {result['backend']}"
    figures.progress(out / "progress.png", trials, title)
    figures.parameters(out / "parameters.png", trials, space, title)
    figures.importance(out / "importance.png", trials, space, title)
    figures.cost(out / "cost.png", trials, title)
    best = result.get("best")
    if best and result.get("history"):
        chosen = f"{title}, trial {best['trial']}"
        training_figures.curves(
            out / "curves.png",
            result["history"],
            result["selected_by"],
            result["best_epoch"],
            chosen,
        )
        matrix = result.get("confusion", {}).get(f"val_{result['selected_by']}")
        if matrix is not None:
            training_figures.confusion(
                out / "confusion.png", matrix, result["classes"], f"{chosen}: validation"
            )
