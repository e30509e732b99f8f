"""Blocks of run folders: trainings, trials of a search, and comparison of searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.report import explain
from shardwave.bench.report.blocks import (
    Block,
    Details,
    Line,
    Lines,
    Matrix,
    Table,
    Text,
    number,
    per_cent,
    plain,
    waterfall,
)
from shardwave.bench.report.records import environment
from shardwave.bench.report.search_study import study_blocks
from shardwave.models.training.config import score_text

Result = Mapping[str, Any]  # content of result.json, see `shardwave.models.runs.records.RunResult`
LEARNING = "training (while learning)"  # scores of training steps, with augmentation and dropout
PARTS = {"train": "train (while learning)", "val": "validation", "test": "test"}
VIEWS = ("full", "slice_mean")
SPENT = {"step": "training steps", "validation": "validation", "data_wait": "waiting for data"}
COMPARED = (
    "search", "backend", "sampler", "scheduler", "jobs", "best (validation)", "trials", "epochs run",
    "saved", "seconds",
    "a trial", "overhead s", "a trial", "s to its best",
)  # fmt: skip


def sections(runs: Sequence[tuple[str, Path]]) -> tuple[list[str], list[tuple[str, Sequence[Block]]]]:
    """Return the summary and the sections of run folders.

    Args:
        runs: Name and folder of each run.
    """
    from shardwave.models.runs.result import read

    results: list[tuple[str, Path, Result]] = [(name, folder, read(folder)) for name, folder in runs]
    searches = {name: folder for name, folder, result in results if "overhead" in result.get("seconds", {})}
    named: list[tuple[str, Sequence[Block]]] = []
    if len(searches) > 1:
        named.append(("Searches side by side", _compared(searches)))
    trained = [(name, folder, result) for name, folder, result in results if name not in searches]
    if len(trained) > 1:
        named.append(("Runs side by side", explain.compared(trained)))
    named += [(name, _blocks(folder, result)) for name, folder, result in results]
    named.append(
        ("Environment of the runs", [environment([result["environment"] for _, _, result in results])])
    )
    return [_sentence(name, result) for name, _, result in results], named


def _sentence(name: str, result: Result) -> str:
    if result["state"] != "COMPLETE":
        return f"{name}: {result['command']} of {result['model']} is {_state(result)}."
    seconds, selected, scores = result["seconds"], result.get("selected_by"), result.get("scores") or {}
    if result["command"] == "search":
        tested = scores.get(f"test_{selected}_accuracy")
        test = "" if tested is None else f", {per_cent(tested)} test accuracy"
        return (
            f"{name}: {result['trials']} trials with {result['backend']} ({result['sampler']}, "
            f"{result['scheduler']}) in {number(seconds['total'])} s, best "
            f"{_score(result, result['best'])} ({selected}){test}; "
            f"{result['epochs']['saved']} epochs saved by stopping, "
            f"{per_cent(seconds['overhead'] / seconds['total'])} of the time overhead."
        )
    counted = [  # test scores first
        f"{per_cent(scores[key])} {part} accuracy ({selected})"
        for part, key in (("test", f"test_{selected}_accuracy"), ("validation", f"val_{selected}_accuracy"))
        if scores.get(key) is not None
    ]
    step, wait = seconds.get("step", 0.0), seconds.get("data_wait", 0.0)
    waited = (
        f"; waiting for data: {per_cent(wait / (step + wait))} of the training steps' time" if step else ""
    )
    return (
        f"{name}: {result['model']} reached {[*counted, 'no score'][0]} in {number(seconds['total'])} "
        f"s{waited}."
    )


def _state(result: Result) -> str:
    return f"{result['state']} ({result['error']})" if result.get("error") else str(result["state"])


def _blocks(folder: Path, result: Result) -> list[Block]:
    blocks: list[Block] = []
    if result["state"] != "COMPLETE":
        blocks.append(Text(f"State: {_state(result)}", strong=True))
    if result["command"] == "search":
        return blocks + _search(folder, result)
    if result.get("per_fold"):
        blocks.append(_folds(result["per_fold"]))
    blocks += explain.blocks(folder, result)
    blocks += [*_history(result), *_confusion(result), *_scores(result), *_seconds(result)]
    chosen = [(key, str(value)) for key, value in (result.get("params") or {}).items()]
    return [*blocks, Details("Hyper-parameters", [Table(("parameter", "value"), chosen)])]


def _history(result: Result) -> list[Block]:
    """Accuracy, recall and F1, loss over epochs."""
    history, selected = result.get("history") or [], result.get("selected_by")

    def line(key: str, name: str, dashed: bool = False) -> list[Line]:
        points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
        return [Line(name, points, dashed=dashed)] if points else []

    candidates = (selected, *VIEWS)
    trained = next(
        (view for view in candidates if any(f"train_{view}_accuracy" in entry for entry in history)), selected
    )
    accuracy = line(f"train_{trained}_accuracy", LEARNING)
    for view in VIEWS:
        mark = " (selected)" if view == selected else ""
        accuracy += line(f"val_{view}_accuracy", f"validation, {view}{mark}", view != selected)
    recall = [
        *line(f"train_{trained}_recall", f"{LEARNING}, recall"),
        *line(f"train_{trained}_f1", f"{LEARNING}, F1", True),
    ]
    recall += [
        *line(f"val_{selected}_recall", "validation, recall"),
        *line(f"val_{selected}_f1", "validation, F1", True),
    ]
    best = result.get("best_epoch")
    charts = [
        Lines("Accuracy over epochs", "epoch", "accuracy", accuracy, mark=best),
        Lines("Recall and F1, weighted", "epoch", "score", recall, mark=best),
        Lines(
            "Loss",
            "epoch",
            "nats",
            [*line("train_loss", LEARNING), *line("val_loss", "validation")],
            mark=best,
        ),
    ]
    note = (
        [Text(f"The dashed vertical line marks epoch {best}, whose weights were saved.")]
        if history and best
        else []
    )
    return [*(chart for chart in charts if chart.lines), *note]


def _confusion(result: Result) -> list[Block]:
    for part, name in (("test", "held-out clips"), ("val", "validation clips")):
        view = result.get("selected_by")
        counts = (result.get("confusion") or {}).get(f"{part}_{view}")
        if counts:
            return [
                Matrix(
                    f"Confusion matrix, {name}, {view}",
                    "true class",
                    "predicted class",
                    result["classes"],
                    counts,
                )
            ]
    return []


def _scores(result: Result) -> list[Block]:
    rows = []
    for part, name in PARTS.items():
        for view in VIEWS:
            values = [
                (result.get("scores") or {}).get(f"{part}_{view}_{score}")
                for score in ("accuracy", "balanced_accuracy", "f1", "macro_f1")
            ]
            if any(value is not None for value in values):
                rows.append((name, view, *map(per_cent, values)))
    head = ("part", "score", "accuracy", "balanced accuracy", "F1, weighted", "macro F1")
    return [Table(head, rows, (2, 3, 4, 5), "Scores of the saved epoch")] if rows else []


def _folds(folds: Any) -> Table:
    rows = []
    for position, fold in folds.items() if isinstance(folds, dict) else enumerate(folds, 1):
        scores = fold.get("scores", fold)
        tests = {view: scores.get(f"test_{view}_accuracy") for view in VIEWS}
        accuracy = ", ".join(
            f"{view} {per_cent(value)}" for view, value in tests.items() if value is not None
        )
        rows.append((str(fold.get("fold", position)), accuracy))
    return Table(
        ("fold held out", "accuracy on it"),
        rows,
        caption="Each fold is scored once, by a model trained on the other folds",
    )


def _seconds(result: Result) -> list[Block]:
    """Return a chart of the seconds of a training, or of a search per job, by part."""
    seconds, search = result.get("seconds") or {}, result["command"] == "search"
    total, jobs = seconds.get("total"), (result.get("jobs") or 1) if search else 1
    if not total:
        return []
    if search:
        parts = [
            (f"{SPENT[key]}, {jobs} jobs at a time", seconds.get(key, 0.0) / jobs)
            for key in ("step", "validation")
        ]
    else:
        parts = [(name, seconds[key]) for key, name in SPENT.items() if seconds.get(key)]
        if isinstance(seconds.get("backbone"), dict) and seconds["backbone"].get("seconds"):
            parts.append(("frozen backbone, once for all trainings", seconds["backbone"]["seconds"]))
    rest = total - sum(value for _, value in parts)
    if search:
        parts.append(("overhead: start, data, scheduling, results", max(0.0, rest)))
    elif rest > 0:
        parts.append(("other: start, scores, figures", rest))
    title = "Parts of the search's time" if search else "Parts of the time"
    return [waterfall(title, "s", parts)] if search or rest > -0.05 * total else []


def _search(folder: Path, result: Result) -> list[Block]:
    from shardwave.search.trial import best_so_far
    from shardwave.search.trial_log import read_trials

    trials = read_trials(folder) if (folder / "trials.jsonl").exists() else []
    if not trials:
        return [Text("No trial has ended yet.")]
    blocks = _best_values({"best so far": best_so_far(trials)})
    if result.get("best"):
        best = result["best"]
        rows = [(key, plain(value)) for key, value in best["params"].items()]
        caption = f"Best: trial {best['trial']}, {_score(result, best)} at epoch {best['epoch']}"
        blocks.append(Table(("parameter", "value"), rows, (1,), caption))
    blocks += explain.blocks(folder, result)
    blocks += [*_scores(result), *_seconds(result), *_confusion(result)]
    if result.get("choice"):
        blocks.append(Text(f"Chosen by auto: {result['choice']['reason']}."))
    if result.get("space"):
        blocks += study_blocks(trials, result["space"])
    names = [name for name in trials[0].params if len({str(trial.params.get(name)) for trial in trials}) > 1]
    same = ", ".join(
        f"{name} {plain(value)}" for name, value in trials[0].params.items() if name not in names
    )
    table: list[Sequence[str]] = []
    for trial in sorted(
        trials, key=lambda trial: -math.inf if trial.value is None else trial.value, reverse=True
    ):
        cells = (
            str(trial.trial),
            trial.state,
            "–" if trial.value is None else _score(result, {"value": trial.value}).split(" validation")[0],
            str(trial.epochs),
            number(trial.seconds),
        )
        table.append((*cells, *(plain(trial.params.get(name)) for name in names)))
    head = ("trial", "state", "validation", "epochs", "seconds", *names)
    shown = Table(head, table, range(2, len(head)), same and f"Equal in all trials: {same}")
    return [*blocks, Details(f"All {len(trials)} trials, best first", [shown])]


def _score(result: Result, best: Mapping[str, Any]) -> str:
    """Return the best value of a search with the name of its metric."""
    return score_text(best["value"], result.get("select_metric", "accuracy"))


def _compared(searches: dict[str, Path]) -> list[Block]:
    from shardwave.search.compare import compare

    steps, rows = {}, []
    for name, row in zip(searches, compare(list(searches.values())), strict=True):
        steps[name] = row["steps"]
        value = row["best"]["value"] if row["best"] else None
        best = number(-value) if value is not None and value < 0 else per_cent(value)  # a loss is negative
        counts = (str(row["trials"]), str(row["epochs"]["run"]), str(row["epochs"]["saved"]))
        times = (
            row["seconds"],
            row["seconds_per_trial"],
            row["overhead"],
            row["overhead_per_trial"],
            row["seconds_to_best"],
        )
        kinds = (row["backend"], row["sampler"] or "-", row["scheduler"] or "-")
        settings = (name, *kinds, str(row["jobs"]), best)
        rows.append((*settings, *counts, *map(number, times)))
    return [Table(COMPARED, rows, range(4, len(COMPARED))), *_best_values(steps)]


def _best_values(steps: Mapping[str, Sequence[Sequence[Any]]]) -> list[Block]:
    """Return charts of the best value over time and over epochs; steps are (seconds, epochs, value)."""
    return [
        Lines(
            f"Best value over {title}", x, "best validation value so far",
            [Line(name, [(float(step[i]), step[2]) for step in points], stairs=True) for name,
            points in steps.items()],
        )
        for i, (title, x) in enumerate((("time", "seconds"), ("epochs spent", "epochs")))
    ]  # fmt: skip
