"""Classified intervals of recordings, and their CSV files and Audacity label files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from shardwave.common.csv_text import csv_bytes
from shardwave.shards.storage import atomic

COLUMNS = ("path", "start", "end", "class", "probability")
FORMATS = ("csv", "audacity")


class Interval(NamedTuple):
    """A part of a recording with its class probabilities."""

    start: float  # seconds
    end: float  # seconds
    probabilities: np.ndarray  # float64 [classes]


def merged(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """Join neighbouring intervals whose most probable class is the same.

    Args:
        intervals: Intervals of one recording in order.

    Yields:
        The joined intervals, each with the mean of the probabilities.
    """
    current, count = None, 0
    for interval in intervals:
        if current is not None and current.probabilities.argmax() == interval.probabilities.argmax():
            count += 1
            mean = current.probabilities + (interval.probabilities - current.probabilities) / count
            current = Interval(current.start, interval.end, mean)
            continue
        if current is not None:
            yield current
        current, count = interval, 1
    if current is not None:
        yield current


class CsvFile:
    """A CSV file of the intervals of all recordings, with the columns `COLUMNS`.

    Args:
        out: The file, which exists after the context.
        classes: Names of the classes.
        probabilities: Whether to add one column of probabilities per class.
    """

    def __init__(self, out: Path, classes: Sequence[str], probabilities: bool = False) -> None:
        self._out, self._classes, self._probabilities = out, classes, probabilities
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> CsvFile:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._stack.enter_context(atomic.opened(self._out))
        self._file.write(csv_bytes([(*COLUMNS, *(self._classes if self._probabilities else ()))]))
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, path: str, intervals: Iterable[Interval]) -> int:
        """Write the rows of one recording and return their number; none if `intervals` raises an error."""
        begin, rows = self._file.tell(), 0
        try:
            for start, end, values in intervals:
                best = int(values.argmax())
                more = [f"{value:.6f}" for value in values] if self._probabilities else []
                row = (path, _time(start), _time(end), self._classes[best], f"{values[best]:.6f}", *more)
                self._file.write(csv_bytes([row]))
                rows += 1
        except BaseException:
            self._file.seek(begin)
            self._file.truncate()
            raise
        return rows


class AudacityFiles:
    """Label tracks of Audacity, one file per recording: lines of start, end and class, separated by tabs.

    Args:
        out: The label file, if `audio` is a file; else the folder of the label files.
        classes: Names of the classes.
        is_folder: Whether there is one label file per recording.
    """

    def __init__(self, out: Path, classes: Sequence[str], is_folder: bool) -> None:
        self._out, self._classes, self._is_folder = out, classes, is_folder

    def __enter__(self) -> AudacityFiles:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, path: str, intervals: Iterable[Interval]) -> int:
        """Write the label file of one recording and return the number of labels."""
        out, rows = self._out / f"{path}.txt" if self._is_folder else self._out, 0
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.opened(out) as file:
            for start, end, values in intervals:
                name = " ".join(self._classes[int(values.argmax())].split())
                file.write(f"{start:.6f}\t{end:.6f}\t{name}\n".encode())
                rows += 1
        return rows


def _time(seconds: float) -> str:
    return f"{round(seconds, 3):.10g}"
