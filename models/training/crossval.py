"""`--folds all`: each fold is tested once, by a model for which nothing was chosen on it (DESIGN §2, splits)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.messages import duration, say
from shardwave.models.data.splits import folds, following, resolve, retraining
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation import clip_csv
from shardwave.models.runs import clip_table, figures, result
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.recorder import SAVE_SECONDS
from shardwave.models.training.run import about, check_same, run
from shardwave.shards.read.open_set import open_set


def cross_validate(
    set_path: Path | str,
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = False,
    command: str = "train",
    save_seconds: float = SAVE_SECONDS,
) -> dict[str, Any]:
    """Each fold k in turn: train with fold k mod n + 1 as validation, which chooses the number of epochs (`enough_epochs`); train
    anew on all folds but k for that long; score once on k.

    Returns what result.json holds: the folds' mean (`scores`) and standard deviation (`spread`), `per_fold`. Run folders:
    `foldK/` (the retrained model) and `foldK/choice/`. A resumed one goes on in the fold that was under way.
    """
    out = Path(out)
    present = folds(open_set(set_path).splits)
    if len(present) < 3:
        raise UsageError(f"--folds all needs a shard set of three folds or more, {set_path} has {len(present)}")
    with result.open_run(out, resume) as earlier:
        begin = time.perf_counter()
        data = TrainingData(set_path, _choosing(config, present[0]))
        if earlier is not None:
            check_same(earlier, config, data, out)
            if earlier["state"] == "COMPLETE":
                return earlier
        table = clip_table.clip_table(data.source, data.field)
        with result.Result(out, command, **about(data, config, table) | {"folds": present}) as written:
            table.write(out)
            per_fold: list[dict[str, Any]] = []
            for fold in present:
                per_fold.append(_fold(set_path, config, fold, present, out / f"fold{fold}", resume, save_seconds))
                written.update(per_fold=per_fold)
                rest = (time.perf_counter() - begin) / len(per_fold) * (len(present) - len(per_fold))
                accuracy = per_fold[-1]["scores"][f"test_{data.selected}_accuracy"]
                say(
                    f"fold {fold}: test accuracy {accuracy:.2%}, {per_fold[-1]['epochs']} epochs by validation"
                    + (f"; {duration(rest)} left" if rest else "")
                )
            confusion = {
                name: np.sum([entry["confusion"][name] for entry in per_fold], axis=0).tolist()
                for name in per_fold[0]["confusion"]
            }
            seconds = {name: sum(entry["seconds"][name] for entry in per_fold) for name in ("step", "validation", "data_wait")}
            seconds["total"] = time.perf_counter() - begin + (earlier or {}).get("seconds", {}).get("total", 0.0)
            written.fields |= {
                "scores": _over(per_fold, np.mean),
                "spread": _over(per_fold, np.std),
                "confusion": confusion,
                "parameters": per_fold[0]["parameters"],
                "threads": per_fold[0]["threads"],
                "seconds": seconds,
            }
            clip_csv.join_errors([out / f"fold{fold}" / clip_csv.ERRORS for fold in present], out / clip_csv.ERRORS)
            title = f"{config.model} on {Path(set_path).name}, {len(present)} folds, {figures.NAMES[data.selected]}"
            figures.confusion(out / "confusion.png", confusion[f"test_{data.selected}"], list(data.source.classes), title)
            histories = {entry["fold"]: entry["choice"]["history"] for entry in per_fold}
            figures.folds(out / "curves.png", histories, data.selected, title)
            for entry in per_fold:
                del entry["choice"]["history"], entry["confusion"]
        return written.fields


def _choosing(config: TrainConfig, fold: int) -> TrainConfig:
    return dataclasses.replace(config, folds=None, test_fold=fold)


def _fold(
    set_path: Path | str, config: TrainConfig, fold: int, present: list[int], out: Path, resume: bool, save_seconds: float
) -> dict[str, Any]:
    names = [f"fold{number}" for number in present]
    choosing = _choosing(config, fold)
    roles = resolve(names, None, fold)._replace(test=())  # what chooses never sees the test fold
    title = f"{config.model}, fold {fold}"
    choice = run(
        TrainingData(set_path, choosing, roles),
        choosing,
        out / "choice",
        resume=resume,
        save_seconds=save_seconds,
        title=f"{title}, choosing epochs",
        draws=False,  # the cross-validation's own show them
    )
    epochs = enough_epochs(choice["history"], choice["selected_by"])
    final = dataclasses.replace(choosing, epochs=epochs)  # a schedule runs to its end: it is laid out over them
    data = TrainingData(set_path, final, retraining(names, fold))
    done = run(data, final, out, resume=resume, save_seconds=save_seconds, title=title)
    return {
        "fold": fold,
        "val_fold": following(present, fold),
        "epochs": epochs,
        "scores": done["scores"],
        "confusion": {name: matrix for name, matrix in done["confusion"].items() if name.startswith("test_")},
        "choice": {"scores": choice["scores"], "history": choice["history"]},
        "parameters": done["parameters"],
        "threads": done["threads"],
        "seconds": {
            name: choice["seconds"][name] + done["seconds"][name] for name in ("total", "step", "validation", "data_wait")
        },
    }


def enough_epochs(history: list[dict[str, Any]], selected: str) -> int:
    """The last epoch whose validation accuracy lies within one standard error of the best epoch's.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), read the way a schedule is: epochs that the clips of one
    fold (80 of ESC-10: 3.4 points at 90 %) cannot tell apart count as equal, and of equals the one nearest to the schedule's end
    is what the schedule was made for. The single best of many noisy values is some epoch in its midst, by luck.
    """
    accuracy = np.array([entry[f"val_{selected}_accuracy"] for entry in history])
    clips = np.sum(history[0]["confusion"][f"val_{selected}"])
    best = accuracy.max()
    return int(np.flatnonzero(accuracy >= best - np.sqrt(best * (1 - best) / clips))[-1]) + 1


def _over(per_fold: list[dict[str, Any]], statistic: Callable[..., Any]) -> dict[str, float]:
    """A statistic over folds: the test scores, and the validation scores of the choice."""
    rows = [
        {name: value for name, value in entry["scores"].items() if name.startswith("test_")}
        | {name: value for name, value in entry["choice"]["scores"].items() if name.startswith("val_")}
        for entry in per_fold
    ]
    return {name: float(statistic([row[name] for row in rows])) for name in rows[0]}
