"""Clips: the entries of a data set before they are decoded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from shardwave.common.errors import UsageError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One audio file, one labelled segment of a file, or one row of a table.

    Args:
        path: Path relative to the audio folder, with forward slashes.
        label: Class name; None if unlabelled.
        fold: Number of the clip's fold if the data set has folds.
        group: Clips of one group are in one split. None: the file is its own group.
        split: One of SPLITS if the data set determines it.
        start: Start of a segment in seconds; None: the start of the file.
        end: End of a segment in seconds; None: the end of the file.
    """

    path: str
    label: str | None = None
    fold: int | None = None
    group: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None

    @property
    def effective_group(self) -> str:
        """Name of the clip's group, or of its file if it has no group."""
        return f"path {self.path}" if self.group is None else f"group {self.group}"

    @property
    def identity(self) -> tuple[str, float, float]:
        """Path, start and end in seconds (inf: end of the file). Unique, and the sort key of clips."""
        return self.path, self.start or 0.0, math.inf if self.end is None else self.end

    @property
    def is_segment(self) -> bool:
        """Whether the clip is a segment of its file."""
        return self.start is not None or self.end is not None

    @property
    def name(self) -> str:
        """Name for messages: the path, with the times of a segment, as in `a.wav (1.5 s to 2 s)`."""
        if not self.is_segment:
            return self.path
        end = "to its end" if self.end is None else f"to {self.end:.10g} s"
        return f"{self.path} ({self.start or 0:.10g} s {end})"


def clip_of_sample(meta: Mapping[str, Any]) -> Clip:
    """Return the clip of a sample, with path and segment only.

    Args:
        meta: The sample's json field.
    """
    start, end = meta.get("segment") or (None, None)
    return Clip(meta["path"], start=start, end=end)


def classes_of(clips: Iterable[Clip]) -> list[str]:
    """Return the sorted class names of some clips; an empty list if no clip has a label.

    Raises:
        UsageError: There is only one class.
    """
    names = sorted({clip.label for clip in clips if clip.label is not None})
    if len(names) == 1:
        raise UsageError(
            f"there must be at least two classes, got one: {names[0]!r}; give a folder per class, or "
            "--labels with a label column"
        )
    return names
