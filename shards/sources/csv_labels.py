"""A label file: a CSV with the columns path,label and, where they are, fold, group and split."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from preprocess.errors import UsageError
from shards.clip import SPLITS, Clip
from shards.sources.class_folders import check_folder, checked_name
from shards.url_path import Place, UrlPath

COLUMNS = ("path", "label", "fold", "group", "split")


def read(audio: Place, labels: Place) -> list[Clip]:
    """The clips that the file `labels` names, sorted by path; every one must exist below `audio`."""
    check_folder(audio)
    clips = [_clip(row, f"{labels} line {line}") for line, row in _rows(labels)]
    if not clips:
        raise UsageError(f"--labels {labels} names no clips: give one line per clip below the header")
    check(clips, str(labels))
    missing = [clip.path for clip in clips if not _there(audio / clip.path)]
    if missing:
        raise UsageError(
            f"{labels}: {len(missing)} of {len(clips)} paths do not exist below {audio} (the first: {missing[0]}); "
            "paths are relative to AUDIO"
        )
    return sorted(clips, key=lambda clip: clip.path)


def check(clips: list[Clip], where: str) -> None:
    """Raise UsageError for a duplicate path, a group in two splits or folds, or folds and splits that are given in part only."""
    seen: set[str] = set()
    for clip in clips:
        if clip.path in seen:
            raise UsageError(f"{where}: every path must stand there once, got {clip.path} twice")
        seen.add(clip.path)
    for column in ("fold", "split"):
        values = [getattr(clip, column) for clip in clips]
        without = sum(value is None for value in values)
        if 0 < without < len(clips):
            path = clips[values.index(None)].path
            raise UsageError(
                f"{where}: {column} must be given for every clip or for none, {without} of {len(clips)} have none "
                f"(the first: {path})"
            )
        _check_groups(clips, column, where)
    if clips and clips[0].fold is not None and clips[0].split is not None:
        raise UsageError(f"{where}: give either a fold column or a split column, not both: drop the one that is not meant")


def _check_groups(clips: Iterable[Clip], column: str, where: str) -> None:
    sides: dict[str, object] = {}
    for clip in clips:
        side = sides.setdefault(clip.effective_group, getattr(clip, column))
        if side != getattr(clip, column):
            raise UsageError(
                f"{where}: clips of one group must lie in one {column}, "
                f"got group {clip.group!r} in {column} {side} and {getattr(clip, column)}"
            )


def _there(path: Place) -> bool:
    return path.is_file() if isinstance(path, UrlPath) else os.path.lexists(path)


def _rows(labels: Place) -> list[tuple[int, dict[str, str | None]]]:
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            for needed in ("path", "label"):
                if needed not in names:
                    raise UsageError(
                        f"--labels {labels} must have the columns path,label[,fold][,group][,split], "
                        f"got {','.join(names) or 'no header'}"
                    )
            return [(reader.line_num, row) for row in reader if any(row.get(name) for name in names)]
    except OSError as error:
        raise UsageError(f"--labels must be a readable CSV file, got {labels}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--labels must be a CSV file in UTF-8, got {labels}: {error}") from None


def _clip(row: dict[str, str | None], where: str) -> Clip:
    values = {name: (row.get(name) or "").strip() or None for name in COLUMNS}
    path = values["path"]
    if path is None:
        raise UsageError(f"{where}: path is empty")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise UsageError(f"{where}: path must be relative to AUDIO and stay below it, got {path}")
    return Clip(
        checked_name(str(pure)),
        values["label"],
        parse_fold(values["fold"], where),
        values["group"],
        parse_split(values["split"], where),
    )


def parse_fold(value: str | None, where: str) -> int | None:
    """A fold number; raises UsageError unless it is a whole number from 0."""
    if value is None:
        return None
    number = value[:-2] if value.endswith(".0") else value  # what a data frame makes of a column of numbers
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"{where}: fold must be a whole number from 0, got {value}")
    return int(number)


def parse_split(value: str | None, where: str) -> str | None:
    """A split's name; raises UsageError unless it is one of SPLITS."""
    if value is not None and value not in SPLITS:
        raise UsageError(f"{where}: split must be one of {', '.join(SPLITS)}, got {value}")
    return value
