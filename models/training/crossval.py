"""Cross-validation (`--folds all`): each fold is tested once, by a model that was selected without it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.messages import duration, say
from shardwave.models.data.splits import folds, next_fold, resolve, retraining
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation import clip_csv
from shardwave.models.runs import clip_table, figures, result
from shardwave.models.runs.records import FoldEntry, HistoryEntry, RunResult, Seconds, StoredScores, score
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.history import selecting_score
from shardwave.models.training.precision import resolved
from shardwave.models.training.recorder import SAVE_SECONDS
from shardwave.models.training.run import check_same, run, run_fields
from shardwave.shards.read.open_set import open_set


def cross_validate(
    set_path: Path | str,
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = False,
    command: str = "train",
    save_seconds: float = SAVE_SECONDS,
    chosen: Callable[[int], Mapping[str, Any]] | None = None,
) -> RunResult:
    """Train and test a model once per fold, and write the mean scores.

    For each fold k of n, a first training without fold k validates on fold k mod n + 1 and selects the number
    of epochs (see `enough_epochs`). A second training on all folds but k runs for this number of epochs and
    is scored once on fold k. The run folders are `foldK/choice/` (first training) and `foldK/` (second
    training).

    Args:
        set_path: Folder or URL of a set with three folds or more.
        config: Training settings.
        out: Run folder.
        resume: Whether to continue an interrupted cross-validation, within the unfinished fold.
        command: Name of the command in result.json.
        save_seconds: Minimum interval between two saved states, in seconds.
        chosen: Returns settings for the round of a fold, which replace those of `config`. They must have been
            chosen without the clips of that fold.

    Returns:
        The content of result.json, with the mean over the folds (`scores`), the standard deviation (`spread`)
        and the results of each fold (`per_fold`).

    Raises:
        UsageError: The set has fewer than three folds, or `out` holds a run that cannot be resumed.
    """
    out = Path(out)
    present = folds(open_set(set_path).splits)
    if len(present) < 3:
        raise UsageError(
            f"--folds all needs a shard set with three folds or more, {set_path} has {len(present)}"
        )
    with result.open_run(out, resume) as earlier:
        begin = time.perf_counter()
        data = TrainingData(set_path, _choice_config(config, present[0]))
        config = resolved(config, data.device)
        if earlier is not None:
            check_same(earlier, config, data, out)
            if earlier["state"] == "COMPLETE":
                return earlier
        table = clip_table.clip_table(data.source, data.field)
        with result.Result(out, command, **run_fields(data, config, table) | {"folds": present}) as record:
            table.write(out)
            per_fold: list[FoldEntry] = []
            for fold in present:
                settings = dict(chosen(fold)) if chosen is not None else {}
                own = dataclasses.replace(config, **settings)
                entry = _fold(set_path, own, fold, present, out / f"fold{fold}", resume, save_seconds)
                if settings:
                    entry["params"] = settings
                per_fold.append(entry)
                record.update(per_fold=per_fold)
                remaining = (time.perf_counter() - begin) / len(per_fold) * (len(present) - len(per_fold))
                accuracy = per_fold[-1]["scores"][f"test_{data.selected}_accuracy"]
                say(
                    f"fold {fold}: test accuracy {accuracy:.2%} after {per_fold[-1]['epochs']} epochs"
                    + (f"; {duration(remaining)} remaining" if remaining else "")
                )
            confusion = {
                name: np.sum([entry["confusion"][name] for entry in per_fold], axis=0).tolist()
                for name in per_fold[0]["confusion"]
            }
            seconds = _sum(*(entry["seconds"] for entry in per_fold))
            seconds["total"] = time.perf_counter() - begin + result.earlier_seconds(earlier)
            record.fields |= {
                "scores": _over(per_fold, np.mean),
                "spread": _over(per_fold, np.std),
                "confusion": confusion,
                "parameters": per_fold[0]["parameters"],
                "threads": per_fold[0]["threads"],
                "seconds": seconds,
            }
            clip_csv.join_errors(
                [out / f"fold{fold}" / clip_csv.ERRORS for fold in present], out / clip_csv.ERRORS
            )
            clip_csv.join_held_out([out / f"fold{fold}" for fold in present], out)
            title = f"{config.model} on {Path(set_path).name}, {len(present)} folds"
            title += f", {figures.NAMES[data.selected]}"
            figures.confusion(
                out / "confusion.png", confusion[f"test_{data.selected}"], list(data.source.classes), title
            )
            histories = {entry["fold"]: entry["choice"]["history"] for entry in per_fold}
            figures.folds(out / "curves.png", histories, data.selected, title)
            for entry in per_fold:
                del entry["choice"]["history"], entry["confusion"]
        return record.fields


def _choice_config(config: TrainConfig, fold: int) -> TrainConfig:
    """Return the settings of the training that selects the number of epochs for a test fold."""
    return dataclasses.replace(config, folds=None, test_fold=fold)


def _fold(
    set_path: Path | str,
    config: TrainConfig,
    fold: int,
    present: list[int],
    out: Path,
    resume: bool,
    save_seconds: float,
) -> FoldEntry:
    """Select the number of epochs for a test fold, train again, and return the entry of `per_fold`."""
    names = [f"fold{number}" for number in present]
    choice_config = _choice_config(config, fold)
    roles = resolve(names, None, fold)._replace(test=())  # the selection does not use the test fold
    title = f"{config.model}, fold {fold}"
    choice = run(
        TrainingData(set_path, choice_config, roles),
        choice_config,
        out / "choice",
        resume=resume,
        save_seconds=save_seconds,
        title=f"{title}, selecting epochs",
        log_folder=out.parent,
        draw_figures=False,  # curves.png of the cross-validation shows all folds
    )
    epochs = enough_epochs(choice["history"], choice["selected_by"], config.select_metric)
    final = dataclasses.replace(choice_config, epochs=epochs)  # the schedule spans these epochs
    data = TrainingData(set_path, final, retraining(names, fold))
    tested = run(
        data, final, out, resume=resume, save_seconds=save_seconds, title=title, log_folder=out.parent
    )
    return {
        "fold": fold,
        "val_fold": next_fold(present, fold),
        "epochs": epochs,
        "scores": tested["scores"],
        "confusion": {
            name: matrix for name, matrix in tested["confusion"].items() if name.startswith("test_")
        },
        "choice": {"scores": choice["scores"], "history": choice["history"]},
        "parameters": tested["parameters"],
        "threads": tested["threads"],
        "seconds": _sum(choice["seconds"], tested["seconds"]),
    }


def _sum(*parts: Seconds) -> Seconds:
    """Add the times of several trainings, by the kinds that all of them have."""
    return {
        "total": sum(part["total"] for part in parts),
        "step": sum(part["step"] for part in parts),
        "validation": sum(part["validation"] for part in parts),
        "data_wait": sum(part["data_wait"] for part in parts),
    }


def enough_epochs(history: list[HistoryEntry], selected: str, select_metric: str = "accuracy") -> int:
    """Return the last epoch whose validation score is within one standard error of the best one.

    This is the one-standard-error rule (Breiman et al. 1984, section 3.4.3). A difference below the standard
    error is not significant for the clips of one fold (80 clips of ESC-10: 3.4 points at 90 %). Of the epochs
    that do not differ significantly from the best one, the last has the smallest learning rate.

    Args:
        history: Entries of the epochs, as in result.json.
        selected: Predictions that select the epoch, "full" or "slice_mean".
        select_metric: Metric that selects the epoch. The standard error is that of an accuracy; for a loss it
            is not known, and the epoch with the lowest one is returned.

    Returns:
        The number of epochs, from 1.
    """
    values = np.array([score(entry, selecting_score(selected, select_metric)) for entry in history])
    if select_metric == "loss":
        return int(values.argmin()) + 1
    clips = np.sum(history[0]["confusion"][f"val_{selected}"])
    best = values.max()
    return int(np.flatnonzero(values >= best - np.sqrt(best * (1 - best) / clips))[-1]) + 1


def _over(per_fold: list[FoldEntry], statistic: Callable[..., Any]) -> StoredScores:
    """Apply `statistic` over the folds to the test scores and to the first trainings' validation scores."""
    rows = [
        {name: value for name, value in entry["scores"].items() if name.startswith("test_")}
        | {name: value for name, value in entry["choice"]["scores"].items() if name.startswith("val_")}
        for entry in per_fold
    ]
    return {name: float(statistic([row[name] for row in rows])) for name in rows[0]}
