"""What a search leaves behind: its summary, the best trial as a run (checkpoint, scores, history), figures."""

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
from shardwave.models.runs.records import HistoryEntry
from shardwave.search.budget import SearchBudget
from shardwave.search.objective import KEPT, TrainingObjective
from shardwave.search.space import Space
from shardwave.search.trial import SearchResult, Trial, best_trial

CHECKPOINT = "checkpoint.ckpt"
KEPT_FILE = re.compile(r"trial-\d+\.(ckpt|json)")
TEMPORARY = re.compile(r"\.(result\.json|checkpoint\.ckpt|[a-z]+\.png|trial-\d+\.ckpt)(\.\d+)?\.tmp")


class KeptTrial(TypedDict):
    """What `objective.TrainingObjective.keep` writes beside a trial's checkpoint."""

    epoch: typed.Count
    selected: str
    history: list[HistoryEntry]
    parameters: typed.Count


def summary(trials: Sequence[Trial], budget: SearchBudget, total: float) -> dict[str, Any]:
    """The fields of result.json that follow from the trials alone. `total`: seconds of the whole command.

    seconds.overhead is the wall time that no job spent in training steps or validation: total - (step + validation) / jobs.
    """
    spent = {kind: sum(trial.spent.get(kind, 0.0) for trial in trials) for kind in ("step", "validation", "data_wait")}
    run = sum(trial.epochs for trial in trials)
    useful = sum(trial.epochs for trial in trials if trial.state != "FAILED")
    best = best_trial(trials)
    busy = (spent["step"] + spent["validation"]) / (budget.jobs or 1)
    return {
        "trials": len(trials),
        "states": dict(Counter(trial.state for trial in trials)),
        "best": best and {"trial": best.trial, "params": best.params, "value": best.value, "epoch": best.best_epoch},
        "params": best and best.params,
        "epochs": {"run": run, "saved": budget.epochs * sum(trial.state != "FAILED" for trial in trials) - useful},
        "seconds": {"total": total, **spent, "overhead": total - busy},
    }


def remove_leftovers(out: Path, trials: Sequence[Trial]) -> None:
    """Remove what a killed search, or one whose disk was full, left in its run folder; the caller holds its lock.

    That is: temporary files, and weights of trials other than the best of those that ended (`trials`).
    """
    best = best_trial(trials)
    keep = {f"trial-{best.trial}.ckpt", f"trial-{best.trial}.json"} if best else set()
    for folder, unwanted in ((out, TEMPORARY), (out / KEPT, KEPT_FILE)):
        if folder.is_symlink() or not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                left = TEMPORARY.fullmatch(entry.name) or unwanted.fullmatch(entry.name)
                if left and entry.name not in keep and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)


def best_run(objective: TrainingObjective, found: SearchResult, out: Path, *, retrain: bool, score_test: bool) -> dict[str, Any]:
    """Put the best trial's checkpoint into `out` and return its fields of result.json (those of a training).

    A trial that ended in this folder was kept; another (run on another machine) is trained again if `retrain`,
    which on the same device and versions gives the same weights.

    Args:
        objective: What the trials trained.
        found: How the search ended.
        out: The search's run folder.
        retrain: Train the best trial again where its weights are not here; false for a search that was interrupted.
        score_test: Score the checkpoint on the clips that were held out (of an interrupted search it is not scored).
    """
    best = found.best
    if best is None:
        return {}
    kept = out / KEPT / f"trial-{best.trial}"
    fields: dict[str, Any] = {"best_epoch": best.best_epoch, "scores": best.info.get("scores", {})}
    if not kept.with_suffix(".ckpt").exists() and retrain:
        config = dataclasses.replace(objective.config_of(best.trial, best.params), stop_after=best.best_epoch)
        local = dataclasses.replace(objective)  # keeps whatever it completes
        local.keep(best.trial, config, local.fit(config))
    if kept.with_suffix(".ckpt").exists():
        about = typed.read(kept.with_suffix(".json"), KeptTrial, f"remove {kept.parent}: the trial is then trained again")
        entry: Mapping[str, Any] = next((entry for entry in about["history"] if entry["epoch"] == about["epoch"]), {})
        fields |= {name: entry[name] for name in ("per_class", "confusion") if name in entry}
        fields |= {"selected_by": about["selected"], "history": about["history"], "parameters": about["parameters"]}
        if retrain:
            os.replace(kept.with_suffix(".ckpt"), out / CHECKPOINT)
            shutil.rmtree(out / KEPT)
            if score_test:
                _score_test(objective, out, fields)
        else:
            shutil.copyfile(kept.with_suffix(".ckpt"), out / f".{CHECKPOINT}.tmp")
            os.replace(out / f".{CHECKPOINT}.tmp", out / CHECKPOINT)
    return fields


def _score_test(objective: TrainingObjective, out: Path, fields: dict[str, Any]) -> None:
    """Add the scores of the checkpoint in `out` on the clips that the search held out."""
    from shardwave.models.evaluation.evaluate import score
    from shardwave.models.runs import checkpoint

    data, trained = objective.data, checkpoint.load(out / CHECKPOINT)
    test = score(trained.head, data.test_batches(), "test", data.field, data.device, trained.config.precision)
    for name, values in (("scores", test.scores), ("per_class", test.per_class), ("confusion", test.confusion)):
        fields[name] = {**fields.get(name, {}), **values}


def draw(out: Path, result: dict[str, Any], trials: Sequence[Trial], space: Space) -> None:
    """The search's figures, and those of the best trial's training."""
    from shardwave.models.runs import figures as training_figures
    from shardwave.search import figures

    title = f"{result['model']} on {Path(result['set']).name}, {result['backend']}"
    figures.progress(out / "progress.png", trials, title)
    figures.parameters(out / "parameters.png", trials, space, title)
    figures.importance(out / "importance.png", trials, space, title)
    figures.cost(out / "cost.png", trials, title)
    if result.get("history"):
        chosen = f"{title}, trial {result['best']['trial']}"
        training_figures.curves(out / "curves.png", result["history"], result["selected_by"], result["best_epoch"], chosen)
        matrix = result.get("confusion", {}).get(f"val_{result['selected_by']}")
        if matrix is not None:
            training_figures.confusion(out / "confusion.png", matrix, result["classes"], f"{chosen}: validation")
