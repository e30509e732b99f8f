"""A clip: one line of what a data set holds, before anything is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from preprocess.errors import UsageError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One recording (or one row of a table) and what is known of it."""

    path: str  # relative to the audio folder, with forward slashes
    label: str | None = None  # None: unlabelled
    fold: int | None = None
    group: str | None = None  # clips of one group never lie on both sides of a split; None: the clip is its own group
    split: str | None = None  # one of SPLITS, where the data set fixes it

    @property
    def effective_group(self) -> str:
        """The group that must not be split: the given one, or else the clip itself."""
        return f"path {self.path}" if self.group is None else f"group {self.group}"


def classes_of(clips: Iterable[Clip]) -> list[str]:
    """The sorted class names; raises UsageError for a single one (no names at all: an unlabelled set)."""
    names = sorted({clip.label for clip in clips if clip.label is not None})
    if len(names) == 1:
        raise UsageError(
            f"there must be at least two classes, got one: {names[0]!r}; give a folder per class, or --labels with a label column"
        )
    return names
