"""CSV files with one row per clip: predictions of a shard set, and misclassified clips."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardwave.common.csv_text import csv_bytes
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.evaluation.metrics import ClipPredictions
from shardwave.shards.clip import Clip, clip_of_sample
from shardwave.shards.read.shardset import View
from shardwave.shards.storage.atomic import write_bytes

ERRORS = "errors.csv"
PREDICTIONS = "predictions.csv"  # of a run: the clips that it was not trained on, with all probabilities
UNKNOWN = "unknown"  # class of rejected predictions
PREDICTION_COLUMNS = ("path", "split", "label", "class", "probability")
ERROR_COLUMNS = (*PREDICTION_COLUMNS, "probability_of_label")


class ClipRow(NamedTuple):
    """Class probabilities of one clip."""

    source: Clip  # its file, segment and group
    split: str
    label: str  # empty if unlabelled
    clip: int  # clip number in the set
    probabilities: np.ndarray  # float64 [classes]
    is_rejected: bool = False  # whether the prediction is too uncertain to be used

    def best(self, classes: Sequence[str]) -> str:
        """Return the most probable class, or `UNKNOWN` if the prediction is rejected."""
        return UNKNOWN if self.is_rejected else classes[int(self.probabilities.argmax())]

    def formatted(self) -> list[str]:
        """Return the probabilities as text, with six decimals."""
        return [f"{probability:.6f}" for probability in self.probabilities]


def clip_rows(predictions: ClipPredictions, view: View, split: str) -> list[ClipRow]:
    """Combine predictions with the paths and labels of the clips.

    Args:
        predictions: Predictions of clips of `view`.
        view: View that was predicted.
        split: Name of the split, stored in the rows.

    Returns:
        One row per clip, sorted by path.
    """
    numbers, first = np.unique(view.clip, return_index=True)
    samples = dict(zip(numbers.tolist(), first.tolist(), strict=True))
    rows = []
    for number, probabilities in zip(predictions.clip.tolist(), predictions.probabilities, strict=True):
        meta = view.meta(samples[number])
        source = dataclasses.replace(clip_of_sample(meta), group=meta["group"])
        rows.append(ClipRow(source, split, meta["label"] or "", number, probabilities))
    return sorted(rows, key=lambda row: row.source.identity)


def misclassified(rows: Iterable[ClipRow], classes: Sequence[str]) -> list[ClipRow]:
    """Select the labelled clips with a wrong most probable class, in descending order of confidence."""
    errors = [row for row in rows if row.label and row.best(classes) != row.label]
    return sorted(errors, key=lambda row: (-float(row.probabilities.max()), row.source.identity))


def write_predictions(
    path: Path, rows: Iterable[ClipRow], classes: Sequence[str], probabilities: bool
) -> None:
    """Write the predictions of clips to a CSV file.

    The file has the columns `PREDICTION_COLUMNS`, then one column per class if `probabilities` is true, then
    `start` and `end` in seconds if at least one clip is a segment of a file.

    Args:
        path: File to write; its folder is created if it does not exist.
        rows: Clips, in the order of the lines.
        classes: Names of the classes of the model, in the order of the probabilities.
        probabilities: Whether to write the columns of the classes.
    """
    more = (ClipRow.formatted, classes) if probabilities else (lambda row: [], ())
    _write(path, rows, classes, *more)


def write_held_out(path: Path, rows: Iterable[ClipRow], classes: Sequence[str]) -> None:
    """Write the predictions of clips that a run was not trained on.

    The columns are `PREDICTION_COLUMNS`, `group` (empty if the clip has none), one column per class, and
    `start` and `end`, in seconds, if a clip is a segment of a file.

    Args:
        path: File to write; its folder is created if it does not exist.
        rows: Clips, in the order of the lines.
        classes: Names of the classes of the model, in the order of the probabilities.
    """
    _write(path, rows, classes, lambda row: [row.source.group or "", *row.formatted()], ("group", *classes))


def read_held_out(run: Path) -> tuple[list[ClipRow], list[str]]:
    """Read `predictions.csv` of a run folder.

    Returns:
        One row per clip, whose `clip` is the number of the row, and the names of the classes.

    Raises:
        UsageError: The file does not exist or cannot be read.
        ShardwaveError: The file is damaged.
    """
    path, first = run / PREDICTIONS, len(PREDICTION_COLUMNS) + 1
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *lines = csv.reader(file)
        has_segments = header[-2:] == ["start", "end"]  # classes are sorted: they never end like this
        classes = header[first : len(header) - 2 * has_segments]
        rows = []
        for number, line in enumerate(lines):
            start, end = (float(cell) if cell else None for cell in (line[-2:] if has_segments else ("", "")))
            source = Clip(line[0], group=line[first - 1] or None, start=start, end=end)
            probabilities = np.array(line[first : first + len(classes)], np.float64)
            rows.append(ClipRow(source, line[1], line[2], number, probabilities))
    except OSError as error:
        problem = error.strerror or error
        raise UsageError(f"{path} cannot be read ({problem}): a finished training writes it") from None
    except (ValueError, IndexError) as error:
        raise ShardwaveError(f"{path} is damaged ({error}): restore it, or train again") from None
    return rows, classes


def write_errors(path: Path, rows: Iterable[ClipRow], classes: Sequence[str]) -> None:
    """Write misclassified clips to a CSV file, in the order of `rows`.

    The file has the columns `ERROR_COLUMNS`, then `start` and `end` in seconds if at least one clip is a
    segment of a file. A label that is not a class of the model has the probability 0.

    Args:
        path: File to write; its folder is created if it does not exist.
        rows: Misclassified clips (see `misclassified`).
        classes: Names of the classes of the model, in the order of the probabilities.
    """
    index = {name: i for i, name in enumerate(classes)}

    def label_probability(row: ClipRow) -> list[str]:
        return [f"{row.probabilities[index[row.label]] if row.label in index else 0.0:.6f}"]

    _write(path, rows, classes, label_probability, ERROR_COLUMNS[len(PREDICTION_COLUMNS) :])


def _write(
    path: Path,
    rows: Iterable[ClipRow],
    classes: Sequence[str],
    more: Callable[[ClipRow], list[str]],
    names: Sequence[str],
) -> None:
    """Write PREDICTION_COLUMNS, the columns `names` with the cells of `more`, and the segment columns."""
    rows = list(rows)
    lines: list[list[str]] = [[*PREDICTION_COLUMNS, *names]]
    for row in rows:
        best = f"{row.probabilities.max():.6f}"
        lines.append([row.source.path, row.split, row.label, row.best(classes), best, *more(row)])
    for column in segment_columns([row.source for row in rows]):
        lines = [[*line, cell] for line, cell in zip(lines, column, strict=True)]
    write_csv(path, lines[0], lines[1:])


def segment_columns(clips: Sequence[Clip]) -> list[list[str]]:
    """Return the columns `start` and `end`, each beginning with its name; none if no clip is a segment."""
    if not any(clip.is_segment for clip in clips):
        return []
    times = [("start", [clip.start for clip in clips]), ("end", [clip.end for clip in clips])]
    return [[name, *("" if value is None else f"{value:.10g}" for value in values)] for name, values in times]


def join_errors(paths: Sequence[Path], out: Path) -> None:
    """Merge the error files of several folds into one, in descending order of confidence."""
    header, rows = list(ERROR_COLUMNS), []
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            first, *rest = csv.reader(file)
            header = max(header, first, key=len)
            rows += rest
    write_csv(out, header, sorted(rows, key=lambda row: (-float(row[4]), row[0])))


def join_held_out(runs: Sequence[Path], out: Path) -> None:
    """Merge the predictions of the folds of a cross-validation into one file, sorted by path."""
    rows: list[ClipRow] = []
    classes: list[str] = []
    for run in runs:
        more, classes = read_held_out(run)
        rows += more
    write_held_out(out / PREDICTIONS, sorted(rows, key=lambda row: row.source.identity), classes)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a UTF-8 CSV file with LF line ends, atomically.

    Args:
        path: File to write; its folder is created if it does not exist.
        header: Names of the columns.
        rows: Cells of each line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, csv_bytes([header, *rows]))
