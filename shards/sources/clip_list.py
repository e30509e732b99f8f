"""Operations on a list of clips: splits from folder names, selection of classes, checks."""

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
    """Return the fold number of a folder name such as `fold7` (UrbanSound8K); None for other names."""
    match = _FOLD_FOLDER.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= MAX_FOLD else None


def split_of_folder(name: str) -> str | None:
    """Return the split of a folder name such as `training` or `val`; None for other names."""
    return SPLIT_NAMES.get(name.lower())


def with_folder_splits(clips: list[Clip], where: str) -> list[Clip]:
    """Assign folds or splits by folder names (`fold1/`, `train/`).

    The clips are returned unchanged in these cases: a clip already has a fold or split; no clip has a label;
    a clip is in no such folder; all clips are in the same fold or split; no folder has the name of the
    training split. If the clips of one group are in different folds or splits by their folders, a message is
    printed and the clips are returned unchanged.

    Args:
        clips: The clips; their paths contain the folder names.
        where: The folder or label file that they come from, for messages.

    Returns:
        The clips, in the same order.
    """
    if any(clip.fold is not None or clip.split is not None for clip in clips) or all(
        clip.label is None for clip in clips
    ):
        return clips
    meanings: dict[str, Callable[[str], object]] = {"fold": fold_of_folder, "split": split_of_folder}
    for field, meaning in meanings.items():
        values = [next(filter(_is_given, map(meaning, clip.path.split("/")[:-1])), None) for clip in clips]
        if None in values or len(set(values)) < 2 or (field == "split" and "train" not in values):
            continue
        changes: list[Any] = [{field: value} for value in values]
        changed = [dataclasses.replace(clip, **change) for clip, change in zip(clips, changes, strict=True)]
        try:
            check_splits(changed, where)
        except UsageError as error:
            say(f"{where}: {field}s from folder names are not used: {error}")
            return clips
        say(f"{where}: {field}s are read from folder names ({', '.join(sorted(map(str, set(values))))})")
        return changed
    return clips


def _is_given(value: object) -> bool:
    return value is not None


def select_classes(clips: Sequence[Clip], classes: str | None) -> list[int]:
    """Return the indices of the clips of selected classes; clips without a class are always included.

    Args:
        clips: All clips.
        classes: Class names separated by commas, as given to `--classes`; None selects all clips.

    Raises:
        UsageError: A class has no clip, or `classes` contains no name.
    """
    if classes is None:
        return list(range(len(clips)))
    chosen = [name.strip() for name in next(csv.reader([classes], skipinitialspace=True), []) if name.strip()]
    known = collections.Counter(clip.label for clip in clips if clip.label is not None)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        names = sorted(known)
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise UsageError(
            f"--classes must name classes of the data, got {', '.join(unknown) or 'none'}: there are {shown}"
        )
    omitted = known.total() - sum(known[name] for name in set(chosen))
    say(f"--classes: {omitted} clips of {len(known) - len(set(chosen))} other classes are omitted")
    return [number for number, clip in enumerate(clips) if clip.label is None or clip.label in chosen]


def check_unique(clips: Sequence[Clip], where: Callable[[int], str]) -> None:
    """Check that no two clips are the same file or the same segment of a file.

    Args:
        clips: The clips.
        where: Returns the location of clip i in its table, for the message.

    Raises:
        UsageError: Two clips are equal.
    """
    seen: dict[tuple[str, float, float], int] = {}
    for number, clip in enumerate(clips):
        first = seen.setdefault(clip.identity, number)
        if first != number:
            raise UsageError(
                f"{where(number)}: {clip.name} is already named in {where(first)}; rows may name a file "
                "several times only if the columns start and end (seconds) give a different segment in "
                "each row"
            )


def check_splits(clips: Sequence[Clip], where: str) -> None:
    """Check the folds and splits of clips that a data set provides.

    Args:
        clips: The clips.
        where: The folder or table that they come from, for messages.

    Raises:
        UsageError: The clips of a group are in different splits or folds, only some clips have a fold or
            split, or the clips have both.
    """
    for field in ("fold", "split"):
        values = [getattr(clip, field) for clip in clips]
        without = sum(value is None for value in values)
        if 0 < without < len(clips):
            raise UsageError(
                f"{where}: {field} must be given for every clip or for none, {without} of {len(clips)} "
                f"have none (the first: {clips[values.index(None)].name})"
            )
        values_of_groups: dict[str, object] = {}
        for clip, value in zip(clips, values, strict=True):
            expected = values_of_groups.setdefault(clip.effective_group, value)
            if expected != value:
                group = f"file {clip.path}" if clip.group is None else f"group {clip.group!r}"
                raise UsageError(
                    f"{where}: clips of one group must be in one {field}, got {group} in {field} "
                    f"{expected} and {value}"
                )
    if clips and clips[0].fold is not None and clips[0].split is not None:
        raise UsageError(f"{where}: clips must have a fold or a split, not both: remove one of the columns")
