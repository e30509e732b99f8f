"""Figures of a run: curves over epochs and the confusion matrix."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from shardwave.common.printable import one_line
from shardwave.models.runs.records import HistoryEntry
from shardwave.models.runs.records import score as score_of
from shardwave.shards.figures import prepare, save

prepare()  # fonts for class names in any script
NAMES = {"full": "whole clips", "slice_mean": "mean over slices"}
# Colours of Okabe & Ito, which are distinguishable without colour vision. Training scores are those of the
# training steps, with augmentation, dropout and changing weights.
_SPLITS = (("train", "training (while learning)", "#0072B2"), ("val", "validation", "#D55E00"))


def curves(
    path: Path, history: list[HistoryEntry], selected: str, best_epoch: int | None, title: str
) -> None:
    """Draw accuracy, recall and F1, and loss over the epochs, for training and validation.

    Args:
        path: File to write.
        history: Entries of the epochs, as in result.json.
        selected: Score that selected the epoch, "full" or "slice_mean".
        best_epoch: Epoch to mark, or None.
        title: Title of the figure.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    accuracy, recall, loss = figure.subplots(1, 3)
    epochs = [entry["epoch"] for entry in history]
    has_scores = {
        (split, score): _has_score(history, split, score) for split in ("train", "val") for score in NAMES
    }
    for split, name, colour in _SPLITS:
        for score in NAMES:
            if not has_scores[split, score]:
                continue
            is_selected = score == selected
            if not is_selected and has_scores[split, selected] and split == "train":
                continue
            label, line = f"{name}, {NAMES[score]}", "-" if is_selected else ":"
            _line(accuracy, epochs, history, f"{split}_{score}_accuracy", colour, line, label)
            if is_selected or split == "train":
                _line(recall, epochs, history, f"{split}_{score}_recall", colour, "-", f"recall, {label}")
                _line(recall, epochs, history, f"{split}_{score}_f1", colour, "--", f"F1, {label}")
        _line(loss, epochs, history, f"{split}_loss", colour, "-", name)
    for axes, name in (
        (accuracy, "Accuracy"),
        (recall, "Recall and F1, weighted by class"),
        (loss, "Loss (nats)"),
    ):
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


def folds(path: Path, histories: dict[int, list[HistoryEntry]], selected: str, title: str) -> None:
    """Draw the accuracy over the epochs for each fold of a cross-validation, and the means over the folds.

    Args:
        path: File to write.
        histories: Entries of the epochs of the training that selected the number of epochs, by test fold.
        selected: Score that selected the number of epochs, "full" or "slice_mean".
        title: Title of the figure.
    """
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for split, name, colour in _SPLITS:
        rows = [
            [score_of(entry, f"{split}_{selected}_accuracy") for entry in history]
            for history in histories.values()
        ]
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
    """Draw a confusion matrix; cells are shaded by their share of the row.

    Args:
        path: File to write.
        matrix: Number of clips by [true class][predicted class].
        classes: Names of the classes.
        title: Title of the figure.
    """
    classes = list(map(one_line, classes))
    # Inches and points; with smaller cells, many classes fit on a screen
    cell, font = (0.55, 9) if len(classes) <= 20 else (0.32, 7)
    size = max(4.5, cell * len(classes) + 2.5)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(
        image, ax=axes, format=PercentFormatter(1.0), label="share of the true class", shrink=0.8, aspect=30
    )
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


def _has_score(history: list[HistoryEntry], split: str, score: str) -> bool:
    return any(f"{split}_{score}_accuracy" in entry for entry in history)


def _line(
    axes: Axes, epochs: list[int], history: list[HistoryEntry], key: str, colour: str, line: str, label: str
) -> None:
    values = [score_of(entry, key) for entry in history]
    if not all(map(math.isnan, values)):
        axes.plot(epochs, values, line, color=colour, marker="." if len(epochs) < 30 else None, label=label)
