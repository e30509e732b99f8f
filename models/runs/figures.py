"""A run's figures: curves over epochs, and the confusion matrix. Drawn without a display, written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from shardwave.common.printable import one_line
from shardwave.shards.figures import prepare, save

prepare()  # class names come in any script
NAMES = {"full": "whole clips", "slice_mean": "mean over slices"}
# Colours: Okabe & Ito, told apart without colour vision, and by line style as well. Scores of training are measured on its own
# steps, with augmentation and dropout, while weights change.
_SIDES = (("train", "training (while learning)", "#0072B2"), ("val", "validation", "#D55E00"))


def curves(path: Path, history: list[dict[str, Any]], selected: str, best_epoch: int | None, title: str) -> None:
    """Accuracy, recall and F1, and loss over epochs, training and validation (the report's figures 4, 5, 6 and 8)."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    accuracy, recall, loss = figure.subplots(1, 3)
    epochs = [entry["epoch"] for entry in history]
    drawn = {(side, score): _scored(history, side, score) for side in ("train", "val") for score in NAMES}
    for side, name, colour in _SIDES:
        for score in NAMES:
            if not drawn[side, score]:
                continue
            chosen = score == selected
            if not chosen and drawn[side, selected] and side == "train":
                continue
            label, line = f"{name}, {NAMES[score]}", "-" if chosen else ":"
            _line(accuracy, epochs, history, f"{side}_{score}_accuracy", colour, line, label)
            if chosen or side == "train":
                _line(recall, epochs, history, f"{side}_{score}_recall", colour, "-", f"recall, {label}")
                _line(recall, epochs, history, f"{side}_{score}_f1", colour, "--", f"F1, {label}")
        _line(loss, epochs, history, f"{side}_loss", colour, "-", name)
    for axes, name in ((accuracy, "Accuracy"), (recall, "Recall and F1, weighted by class"), (loss, "Loss (nats)")):
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes is not loss:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylim(0, 1.02)
        if best_epoch is not None:
            axes.axvline(best_epoch, color="0.5", linewidth=1, label=f"kept: epoch {best_epoch}")
        axes.legend(fontsize=8)
    figure.suptitle(title)
    save(figure, path, dpi=110)


def folds(path: Path, histories: dict[int, list[dict[str, Any]]], selected: str, title: str) -> None:
    """Accuracy over epochs of each fold's choosing run, training and validation, with their means."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for side, name, colour in _SIDES:
        rows = [[entry.get(f"{side}_{selected}_accuracy", float("nan")) for entry in history] for history in histories.values()]
        epochs = range(1, 1 + min(map(len, rows)))
        for row in rows:
            axes.plot(epochs, row[: len(epochs)], color=colour, alpha=0.3, linewidth=1)
        mean = [sum(values) / len(rows) for values in zip(*rows, strict=False)]
        axes.plot(epochs, mean, color=colour, label=f"{name}, mean of folds")
    axes.set(title=title, xlabel="epoch", ylabel=f"accuracy, {NAMES[selected]}", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path, dpi=110)


def confusion(path: Path, matrix: list[list[int]], classes: list[str], title: str) -> None:
    """Clips by true class (rows) and predicted class (columns), each cell with its count, shaded by its share of the row."""
    classes = list(map(one_line, classes))
    cell, font = (0.55, 9) if len(classes) <= 20 else (0.32, 7)  # inches and points: many classes still fit a screen
    size = max(4.5, cell * len(classes) + 2.5)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0), label="share of the true class", shrink=0.8, aspect=30)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=font)
    axes.set_yticks(range(len(classes)), classes, fontsize=font)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if len(classes) <= 40:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                if count:
                    ink = "white" if shares[row][column] > 0.6 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=font)
    save(figure, path, dpi=110)


def _scored(history: list[dict[str, Any]], side: str, score: str) -> bool:
    return any(f"{side}_{score}_accuracy" in entry for entry in history)


def _line(axes: Any, epochs: list[int], history: list[dict[str, Any]], key: str, colour: str, line: str, label: str) -> None:
    values = [entry.get(key) for entry in history]
    if any(value is not None for value in values):
        shown = [float("nan") if value is None else value for value in values]
        axes.plot(epochs, shown, line, color=colour, marker="." if len(epochs) < 30 else None, label=label)
