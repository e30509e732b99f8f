"""A clip: one line of what a data set holds, before anything is decoded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from shardwave.common.errors import UsageError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One audio file, one labelled segment of a file, or one row of a table, and what is known about it."""

    path: str  # relative to the audio folder, with forward slashes
    label: str | None = None  # None: unlabelled
    fold: int | None = None
    group: str | None = None  # clips of one group never lie in two splits; None: the file is its own group
    split: str | None = None  # one of SPLITS, where the data set fixes it
    start: float | None = None  # of a segment, in seconds; None: the file's beginning
    end: float | None = None  # of a segment, in seconds; None: the file's end

    @property
    def effective_group(self) -> str:
        """The group that must not be split: the given one, or else the file."""
        return f"path {self.path}" if self.group is None else f"group {self.group}"

    @property
    def identity(self) -> tuple[str, float, float]:
        """Path, start and end in seconds (infinite: the file's end): unique in a data set, and the order of its clips."""
        return self.path, self.start or 0.0, math.inf if self.end is None else self.end

    @property
    def is_segment(self) -> bool:
        """Whether the clip is a part of its file."""
        return self.start is not None or self.end is not None

    @property
    def name(self) -> str:
        """The path, and the seconds of a segment, for messages: `a.wav (1.5 to 2 s)`."""
        if not self.is_segment:
            return self.path
        return f"{self.path} ({self.start or 0:.10g} s {'to its end' if self.end is None else f'to {self.end:.10g} s'})"


def clip_of_sample(meta: Mapping[str, Any]) -> Clip:
    """The clip that a sample was made from: path and segment, from the sample's json field."""
    start, end = meta.get("segment") or (None, None)
    return Clip(meta["path"], start=start, end=end)


def classes_of(clips: Iterable[Clip]) -> list[str]:
    """The sorted class names; raises UsageError for a single one (no names at all: an unlabelled set)."""
    names = sorted({clip.label for clip in clips if clip.label is not None})
    if len(names) == 1:
        raise UsageError(
            f"there must be at least two classes, got one: {names[0]!r}; give a folder per class, or --labels with a label column"
        )
    return names
