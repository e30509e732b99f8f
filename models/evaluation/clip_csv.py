"""CSV files with one row per clip: predictions of a shard set, and the clips that a model gets wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardwave.common.csv_text import csv_bytes
from shardwave.models.evaluation.metrics import ClipPredictions
from shardwave.shards.clip import Clip, clip_of_sample
from shardwave.shards.read.shardset import View
from shardwave.shards.storage.atomic import write_bytes

ERRORS = "errors.csv"
PREDICTION_COLUMNS = ("path", "split", "label", "class", "probability")
ERROR_COLUMNS = (*PREDICTION_COLUMNS, "probability_of_label")


class ClipRow(NamedTuple):
    """A clip and the probabilities of its classes."""

    source: Clip  # its file and segment
    split: str
    label: str  # empty where unlabelled
    clip: int  # its number in the set
    probabilities: np.ndarray  # float64 [classes]

    def best(self, classes: Sequence[str]) -> str:
        """The most probable class."""
        return classes[int(self.probabilities.argmax())]

    def formatted(self) -> list[str]:
        """The probabilities as a CSV shows them."""
        return [f"{probability:.6f}" for probability in self.probabilities]


def clip_rows(predictions: ClipPredictions, view: View, split: str) -> list[ClipRow]:
    """The clips of `predictions`, made of `view`, with their paths and labels, sorted by path."""
    numbers, first = np.unique(view.clip, return_index=True)
    samples = dict(zip(numbers.tolist(), first.tolist(), strict=True))
    rows = []
    for number, probabilities in zip(predictions.clip.tolist(), predictions.probabilities, strict=True):
        meta = view.meta(samples[number])
        rows.append(ClipRow(clip_of_sample(meta), split, meta["label"] or "", number, probabilities))
    return sorted(rows, key=lambda row: row.source.identity)


def wrong(rows: Iterable[ClipRow], classes: Sequence[str]) -> list[ClipRow]:
    """The labelled clips for which another class than their label is the most probable; the most confident first."""
    found = [row for row in rows if row.label and row.best(classes) != row.label]
    return sorted(found, key=lambda row: (-float(row.probabilities.max()), row.source.identity))


def write_predictions(path: Path, rows: Iterable[ClipRow], classes: Sequence[str], probabilities: bool) -> None:
    """Write PREDICTION_COLUMNS, of segments `start` and `end` too, and with `probabilities` one more column per class."""
    more = (ClipRow.formatted, classes) if probabilities else (lambda row: [], ())
    _write(path, rows, classes, *more)


def write_errors(path: Path, rows: Iterable[ClipRow], classes: Sequence[str]) -> None:
    """Write ERROR_COLUMNS of the rows, in their order, of segments `start` and `end` too.

    A label that is no class of the model has the probability 0.
    """
    number = {name: i for i, name in enumerate(classes)}

    def likely(row: ClipRow) -> list[str]:
        return [f"{row.probabilities[number[row.label]] if row.label in number else 0.0:.6f}"]

    _write(path, rows, classes, likely, ERROR_COLUMNS[len(PREDICTION_COLUMNS) :])


def _write(
    path: Path, rows: Iterable[ClipRow], classes: Sequence[str], more: Callable[[ClipRow], list[str]], names: Sequence[str]
) -> None:
    """Write PREDICTION_COLUMNS of the rows, the columns `names` that `more` gives, and the segments' begins and ends, if any."""
    rows = list(rows)
    lines: list[list[str]] = [[*PREDICTION_COLUMNS, *names]]
    for row in rows:
        best = f"{row.probabilities.max():.6f}"
        lines.append([row.source.path, row.split, row.label, row.best(classes), best, *more(row)])
    for column in segment_columns([row.source for row in rows]):
        lines = [[*line, cell] for line, cell in zip(lines, column, strict=True)]
    write_csv(path, lines[0], lines[1:])


def segment_columns(clips: Sequence[Clip]) -> list[list[str]]:
    """The columns `start` and `end`, each with its name first, if any clip is a segment; else none."""
    if not any(clip.is_segment for clip in clips):
        return []
    times = [("start", [clip.start for clip in clips]), ("end", [clip.end for clip in clips])]
    return [[name, *("" if value is None else f"{value:.10g}" for value in values)] for name, values in times]


def join_errors(paths: Sequence[Path], out: Path) -> None:
    """Join error files into one, the most confident first: those of the folds of a cross-validation."""
    header, rows = list(ERROR_COLUMNS), []
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            first, *rest = csv.reader(file)
            header = max(header, first, key=len)
            rows += rest
    write_csv(out, header, sorted(rows, key=lambda row: (-float(row[4]), row[0])))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV in UTF-8 with `\\n` at the ends of its lines, atomically, into a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, csv_bytes([header, *rows]))
