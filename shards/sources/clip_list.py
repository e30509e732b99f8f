"""What is done with the clips of a data set once they are known: splits from folder names, a choice of classes, checks."""

from __future__ import annotations

import collections
import csv
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip
from shardwave.shards.sources.table_columns import MAX_FOLD, SPLIT_NAMES

_FOLD_FOLDER = re.compile(r"fold[ _-]?([0-9]{1,4})", re.IGNORECASE)


def fold_of_folder(name: str) -> int | None:
    """The fold that a folder's name means, as in UrbanSound8K: `fold7`."""
    match = _FOLD_FOLDER.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= MAX_FOLD else None


def split_of_folder(name: str) -> str | None:
    """The split that a folder's name means: `training`, `val`, ..."""
    return SPLIT_NAMES.get(name.lower())


def with_folder_splits(clips: list[Clip], where: str) -> list[Clip]:
    """Take folds or splits from the folders (`fold1/`, `train/`) where labelled clips have neither and all lie in such folders.

    Folders that would break a group are not taken, and a message says so.
    """
    if any(clip.fold is not None or clip.split is not None for clip in clips) or all(clip.label is None for clip in clips):
        return clips
    meanings: dict[str, Callable[[str], object]] = {"fold": fold_of_folder, "split": split_of_folder}
    for field, meaning in meanings.items():
        values = [next(filter(_given, map(meaning, clip.path.split("/")[:-1])), None) for clip in clips]
        if None in values or len(set(values)) < 2 or (field == "split" and "train" not in values):
            continue
        changes: list[dict[str, Any]] = [{field: value} for value in values]
        changed = [dataclasses.replace(clip, **change) for clip, change in zip(clips, changes, strict=True)]
        try:
            check_splits(changed, where)
        except UsageError as error:
            say(f"{where}: the {field}s that the folders name are not used: {error}")
            return clips
        say(f"{where}: the {field}s are those that the folders name ({', '.join(sorted(map(str, set(values))))})")
        return changed
    return clips


def _given(value: object) -> bool:
    return value is not None


def of_classes(clips: Sequence[Clip], classes: str | None) -> list[int]:
    """Indices of the clips of the classes that `--classes` names (separated by commas), and of clips without a class.

    Raises:
        UsageError: A class has no clip.
    """
    if classes is None:
        return list(range(len(clips)))
    chosen = [name.strip() for name in next(csv.reader([classes], skipinitialspace=True), []) if name.strip()]
    known = collections.Counter(clip.label for clip in clips if clip.label is not None)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        names = sorted(known)
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise UsageError(f"--classes must name classes of the data, got {', '.join(unknown) or 'none'}: there are {shown}")
    left = known.total() - sum(known[name] for name in set(chosen))
    say(f"--classes: {left} clips of {len(known) - len(set(chosen))} other classes are left out")
    return [number for number, clip in enumerate(clips) if clip.label is None or clip.label in chosen]


def check_unique(clips: Sequence[Clip], where: Callable[[int], str]) -> None:
    """Raise UsageError where two clips are the same file or the same segment of it; `where(i)` names the place of clip i."""
    seen: dict[tuple[str, float, float], int] = {}
    for number, clip in enumerate(clips):
        first = seen.setdefault(clip.identity, number)
        if first != number:
            raise UsageError(
                f"{where(number)}: {clip.name} stands already in {where(first)}; rows may name one file several times "
                "if columns start and end (seconds) say which segment each row labels"
            )


def check_splits(clips: Sequence[Clip], where: str) -> None:
    """Raise UsageError for a group in two splits or folds, for folds and splits given in part only, and for both together."""
    for field in ("fold", "split"):
        values = [getattr(clip, field) for clip in clips]
        without = sum(value is None for value in values)
        if 0 < without < len(clips):
            raise UsageError(
                f"{where}: {field} must be given for every clip or for none, {without} of {len(clips)} have none "
                f"(the first: {clips[values.index(None)].name})"
            )
        sides: dict[str, object] = {}
        for clip, value in zip(clips, values, strict=True):
            side = sides.setdefault(clip.effective_group, value)
            if side != value:
                group = f"file {clip.path}" if clip.group is None else f"group {clip.group!r}"
                raise UsageError(
                    f"{where}: clips of one group must lie in one {field}, got {group} in {field} {side} and {value}"
                )
    if clips and clips[0].fold is not None and clips[0].split is not None:
        raise UsageError(f"{where}: give either a fold column or a split column, not both: drop the one that is not meant")
