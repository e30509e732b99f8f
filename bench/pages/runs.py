"""Run folders as blocks: a training's curves and confusion matrix, a search's trials, several searches side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.pages.blocks import Block, Details, Line, Lines, Matrix, Section, Table, Text, Waterfall, number, per_cent
from bench.pages.records import environment

Run = tuple[str, Path]
LEARNING = "training (while learning)"  # of its own steps, with augmentation and dropout
PARTS = {"train": "train (while learning)", "val": "validation", "test": "test"}
SPENT = {"step": "training steps", "validation": "validation", "data_wait": "waiting for data"}


def sections(runs: Sequence[Run]) -> tuple[list[str], list[Section]]:
    """Summary sentences and sections for run folders (train, search, cross-validation)."""
    from models.result import read

    results = [(name, folder, read(folder)) for name, folder in runs]
    searches = [found for found in results if found[2]["command"] == "search" and "overhead" in found[2].get("seconds", {})]
    sentences = [_sentence(name, result) for name, _, result in results]
    made = []
    if len(searches) > 1:
        made.append(Section("Searches side by side", _compared(searches)))
    for name, folder, result in results:
        made.append(Section(name, _search(folder, result) if result["command"] == "search" else _training(result)))
    made.append(Section("Environment of the runs", [environment([result["environment"] for _, _, result in results])]))
    return sentences, made


def _sentence(name: str, result: dict[str, Any]) -> str:
    if result["state"] != "COMPLETE":
        return f"{name}: {result['command']} of {result['model']} is {_state(result)}."
    seconds = result["seconds"]
    if result["command"] == "search":
        best, selected = result["best"], result.get("selected_by")
        overhead = seconds["overhead"] / seconds["total"]
        tested = (result.get("scores") or {}).get(f"test_{selected}_accuracy")
        test = "" if tested is None else f", {per_cent(tested)} test accuracy"
        return (
            f"{name}: {result['trials']} trials with {result['backend']} ({result['sampler']}, {result['scheduler']}) in "
            f"{number(seconds['total'])} s, best {per_cent(best['value'])} validation accuracy ({selected}){test}; "
            f"{result['epochs']['saved']} epochs saved by "
            f"stopping, {per_cent(overhead)} of the time overhead."
        )
    score = _headline(result)
    wait = seconds.get("data_wait", 0.0) / max(1e-9, seconds.get("step", 0.0) + seconds.get("data_wait", 0.0))
    waited = f"; waiting for data: {per_cent(wait)} of the training steps' time" if seconds.get("step") else ""
    return f"{name}: {result['model']} reached {score} in {number(seconds['total'])} s{waited}."


def _state(result: dict[str, Any]) -> str:
    return f"{result['state']} ({result['error']})" if result.get("error") else str(result["state"])


def _headline(result: dict[str, Any]) -> str:
    """The score that counts: on the held-out part where there is one."""
    selected = result.get("selected_by")
    for part, name in (("test", "test"), ("val", "validation")):
        value = result["scores"].get(f"{part}_{selected}_accuracy")
        if value is not None:
            return f"{per_cent(value)} {name} accuracy ({selected})"
    return "no score"


def _training(result: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    if result["state"] != "COMPLETE":
        blocks.append(Text(f"State: {_state(result)}", strong=True))
    if result.get("per_fold"):
        blocks.append(_folds(result["per_fold"]))
    blocks += _history(result)
    blocks += _confusion(result)
    blocks += _scores(result)
    blocks += _seconds(result)
    chosen = [(key, str(value)) for key, value in (result.get("params") or {}).items()]
    blocks.append(Details("Hyper-parameters", [Table(("parameter", "value"), chosen)]))
    return blocks


def _history(result: dict[str, Any]) -> list[Block]:
    """Accuracy, recall and F1, loss over epochs."""
    history, selected = result.get("history") or [], result.get("selected_by")
    if not history:
        return []

    def line(key: str, name: str, dashed: bool = False) -> list[Line]:
        points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
        return [Line(name, points, dashed=dashed)] if points else []

    views = [view for view in ("whole", "slice_mean") if any(f"val_{view}_accuracy" in entry for entry in history)]
    candidates = (selected, "whole", "slice_mean")
    trained = next((view for view in candidates if any(f"train_{view}_accuracy" in entry for entry in history)), selected)
    accuracy = line(f"train_{trained}_accuracy", LEARNING)
    for view in views:
        mark = " (selected)" if view == selected else ""
        accuracy += line(f"val_{view}_accuracy", f"validation, {view}{mark}", view != selected)
    recall = [*line(f"train_{trained}_recall", f"{LEARNING}, recall"), *line(f"train_{trained}_f1", f"{LEARNING}, F1", True)]
    recall += [*line(f"val_{selected}_recall", "validation, recall"), *line(f"val_{selected}_f1", "validation, F1", True)]
    best = result.get("best_epoch")
    charts = [
        Lines("Accuracy over epochs", "epoch", "accuracy", accuracy, mark=best),
        Lines("Recall and F1, weighted", "epoch", "score", recall, mark=best),
        Lines("Loss", "epoch", "nats", [*line("train_loss", LEARNING), *line("val_loss", "validation")], mark=best),
    ]
    told = f"The dashed upright line is epoch {best}, whose weights were kept." if best else ""
    return [*(chart for chart in charts if chart.lines), *([Text(told)] if told else [])]


def _confusion(result: dict[str, Any]) -> list[Block]:
    matrices = result.get("confusion") or {}
    selected = result.get("selected_by")
    for part, name in (("test", "held-out clips"), ("val", "validation clips")):
        counts = matrices.get(f"{part}_{selected}")
        if counts:
            return [Matrix(f"Confusion matrix, {name}, {selected}", "true class", "predicted class", result["classes"], counts)]
    return []


def _scores(result: dict[str, Any]) -> list[Block]:
    scores = result.get("scores") or {}
    rows = []
    for part, name in PARTS.items():
        for view in ("whole", "slice_mean"):
            values = [scores.get(f"{part}_{view}_{score}") for score in ("accuracy", "recall", "f1")]
            if any(value is not None for value in values):
                rows.append((name, view, *(per_cent(value) for value in values)))
    head = ("part", "score", "accuracy", "recall", "F1")
    return [Table(head, rows, (2, 3, 4), "Scores of the epoch that was kept")] if rows else []


def _folds(folds: Any) -> Table:
    entries = folds.items() if isinstance(folds, dict) else enumerate(folds, 1)
    rows = []
    for position, fold in entries:
        scores = fold.get("scores", fold)
        tests = {view: scores.get(f"test_{view}_accuracy") for view in ("whole", "slice_mean")}
        told = ", ".join(f"{view} {per_cent(value)}" for view, value in tests.items() if value is not None)
        rows.append((str(fold.get("fold", position)), told))
    return Table(("fold held out", "accuracy on it"), rows, caption="Each fold scored once, by a model that never saw it")


def _seconds(result: dict[str, Any]) -> list[Block]:
    seconds = dict(result.get("seconds") or {})
    total = seconds.pop("total", None)
    if not total:
        return []
    parts = [(label, seconds[key]) for key, label in SPENT.items() if seconds.get(key)]
    if isinstance(seconds.get("backbone"), dict) and seconds["backbone"].get("seconds"):
        parts.append(("frozen backbone, once for all trainings", seconds["backbone"]["seconds"]))
    rest = total - sum(value for _, value in parts)
    if rest > 0:
        parts.append(("all else: start, scores, figures", rest))
    return [Waterfall("Where the time went", "s", parts)] if rest > -0.05 * total else []


def _search(folder: Path, result: dict[str, Any]) -> list[Block]:
    from search.results import read_trials
    from search.trial import best_so_far

    blocks: list[Block] = []
    if result["state"] != "COMPLETE":
        blocks.append(Text(f"State: {_state(result)}", strong=True))
    trials = read_trials(folder) if (folder / "trials.jsonl").exists() else []
    if not trials:
        return [*blocks, Text("No trial has ended.")]
    steps = best_so_far(trials)
    over_time = Line("best so far", [(seconds, value) for seconds, _, value in steps], stairs=True)
    over_epochs = Line("best so far", [(float(epochs), value) for _, epochs, value in steps], stairs=True)
    blocks += [
        Lines("Best value over time", "seconds", "best validation value so far", [over_time]),
        Lines("Best value over epochs spent", "epochs", "best validation value so far", [over_epochs]),
    ]
    if result.get("best"):
        best = result["best"]
        rows = [(key, _plain(value)) for key, value in best["params"].items()]
        caption = f"Best: trial {best['trial']}, {per_cent(best['value'])} validation accuracy at epoch {best['epoch']}"
        blocks.append(Table(("parameter", "value"), rows, (1,), caption))
    blocks += _scores(result)
    blocks += _search_seconds(result)
    blocks += _confusion(result)
    names = [name for name in trials[0].params if len({str(trial.params.get(name)) for trial in trials}) > 1]
    same = ", ".join(f"{name} {_plain(value)}" for name, value in trials[0].params.items() if name not in names)
    table: list[Sequence[str]] = []
    for trial in sorted(trials, key=lambda trial: -1.0 if trial.value is None else trial.value, reverse=True):
        cells = (str(trial.trial), trial.state, per_cent(trial.value), str(trial.epochs), number(trial.seconds))
        table.append((*cells, *(_plain(trial.params.get(name)) for name in names)))
    head = ("trial", "state", "validation", "epochs", "seconds", *names)
    shown = Table(head, table, range(2, len(head)), same and f"The same in all: {same}")
    blocks.append(Details(f"All {len(trials)} trials, best first", [shown]))
    return blocks


def _plain(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _search_seconds(result: dict[str, Any]) -> list[Block]:
    """Seconds of all jobs: steps, validation, and what is neither."""
    seconds, jobs = result.get("seconds") or {}, result.get("jobs") or 1
    if not seconds.get("total"):
        return []
    parts = [(f"{SPENT[key]}, {jobs} jobs at a time", seconds.get(key, 0.0) / jobs) for key in ("step", "validation")]
    parts.append(("overhead: start, data, scheduling, results", max(0.0, seconds["total"] - sum(value for _, value in parts))))
    return [Waterfall("Where the search's time went", "s", parts)]


def _compared(searches: Sequence[tuple[str, Path, dict[str, Any]]]) -> list[Block]:
    from search.compare import compare

    over_time, over_epochs, rows = [], [], []
    for (name, _, _), row in zip(searches, compare([folder for _, folder, _ in searches]), strict=True):
        over_time.append(Line(name, [(seconds, value) for seconds, _, value in row["steps"]], stairs=True))
        over_epochs.append(Line(name, [(float(epochs), value) for _, epochs, value in row["steps"]], stairs=True))
        best = row["best"] or {}
        cells = (row["seconds"], row["seconds_per_trial"], row["overhead"], row["overhead_per_trial"], row["seconds_to_best"])
        about = (name, row["backend"], row["sampler"], row["scheduler"], str(row["jobs"]), per_cent(best.get("value")))
        rows.append((*about, str(row["trials"]), str(row["epochs"]["run"]), str(row["epochs"]["saved"]), *map(number, cells)))
    head = [
        *["search", "backend", "sampler", "scheduler", "jobs", "best (validation)", "trials"],
        "epochs run",
        "saved",
        "seconds",
        "a trial",
    ]
    head += ["overhead s", "a trial", "s to its best"]
    return [
        Table(head, rows, range(4, len(head))),
        Lines("Best value over time", "seconds", "best validation value so far", over_time),
        Lines("Best value over epochs spent", "epochs", "best validation value so far", over_epochs),
    ]
