"""Columns of label files and tables of features: path, class, group, fold, split and segment of a clip."""

from __future__ import annotations

import dataclasses
import math
import re

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import SPLITS, Clip
from shardwave.shards.sources.text_table import TextTable

# Recognised column names; the first that a table contains is used. Case, spaces and hyphens do not matter.
PATH = (
    "path", "filepath", "file_path", "filename", "file_name", "fname", "file", "audio_path", "audio_file",
    "audio_filename", "audio", "slice_file_name", "id", "clip_id", "track_id",
)  # fmt: skip
LABEL = (
    "label", "category", "class", "class_name", "classname", "target_name", "label_name", "primary_label",
    "genre", "species", "word", "emotion", "instrument", "target", "class_id", "classid", "label_id",
)  # fmt: skip  # columns of class names come before columns of class numbers
GROUP = (
    "artist",
    "artist_name",
    "artist_id",
    "speaker",
    "speaker_id",
    "singer",
    "subject",
    "subject_id",
    "patient_id",
)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
MAX_FOLD = 9_999
# 1.0 is allowed, because pandas writes integers as floats in columns with missing values.
_FOLD = re.compile(r"(?:fold[ _-]?)?([0-9]{1,9})(?:\.0)?", re.IGNORECASE)
_SECONDS = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ROW_NUMBERS = re.compile(  # names that pandas and pyarrow give to index columns
    r"|unnamed:_[0-9]+(\.[0-9]+)*|_*index_level_[0-9]+_*|index|idx|row|row_?(id|index|number|nr|names)"
)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Column indices by role (None: the table has no such column); `others` are all remaining columns."""

    path: int | None
    label: int | None
    group: int | None
    fold: int | None
    split: int | None
    start: int | None
    end: int | None
    others: list[int]


def find(table: TextTable, options: BuildOptions) -> Columns:
    """Find the columns that describe clips, by options or by their names.

    Recognised names are PATH, LABEL, GROUP, `group`, `fold`, `split`, `start` and `end`. Columns of artists
    or speakers (GROUP) are used as groups only if the table has neither folds nor splits. `start` and `end`
    are ignored in a table with `slice_file_name` (UrbanSound8K), because they are times in the original
    recordings and not in the files.

    Args:
        table: The table.
        options: `path_column`, `label_column` and `group_column` name columns explicitly. With `label_from`
            or `group_from`, no column of classes or groups is searched for.

    Returns:
        The index of each column.

    Raises:
        UsageError: The table lacks a column that an option names.
    """
    plain = [_plain(name) for name in table.columns]
    taken: set[int] = set()

    def find_named(option: str, name: str | None) -> int | None:
        if name is None:
            return None
        if name not in table.columns:
            raise UsageError(
                f"{option} must be a column of {table.name}, got {name!r}: it has {format_columns(table)}"
            )
        taken.add(table.columns.index(name))
        return table.columns.index(name)

    def find_known(*names: str) -> int | None:
        candidates = (plain.index(name) for name in names if name in plain)
        column = next((index for index in candidates if index not in taken), None)
        taken.update(() if column is None else (column,))
        return column

    path = find_named("--path-column", options.path_column)
    label = find_named("--label-column", options.label_column)
    group = find_named("--group-column", options.group_column)
    path = find_known(*PATH) if path is None else path
    label = find_known(*LABEL) if label is None and options.label_from is None else label
    fold, split = find_known("fold"), find_known("split")
    group = find_known("group") if group is None else group
    if group is None and fold is None and split is None and options.group_from is None:
        group = find_known(*GROUP)
    start = end = None
    if path is not None and "slice_file_name" not in plain:
        start, end = find_known("start"), find_known("end")
    others = [index for index in range(len(table.columns)) if index not in taken]
    return Columns(path, label, group, fold, split, start, end, others)


def format_columns(table: TextTable) -> str:
    """Return the column names of a table for a message; at most 20."""
    names = [name or "(no name)" for name in table.columns]
    return (", ".join(names[:20]) + (", ..." if len(names) > 20 else "")) or "no columns"


def report(table: TextTable, columns: Columns, unused: list[int], reason: str = "not used") -> None:
    """Print one line with the columns of path, label and group that have other names, and unused columns.

    Args:
        table: The table.
        columns: Its columns, as returned by `find`.
        unused: Indices of the columns that are not used.
        reason: Text before the names of the unused columns.
    """
    roles = [
        (index, role) for role in ("path", "label", "group") if (index := getattr(columns, role)) is not None
    ]
    parts = [f"{table.columns[index]} as {role}" for index, role in roles if table.columns[index] != role]
    text = (
        f"column {parts[0].replace(' as ', ' is read as ', 1)}" + "".join(f", {part}" for part in parts[1:])
        if parts
        else ""
    )
    names = [table.columns[index] or "a column without a name" for index in unused]
    unused_text = f"{reason}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else ""
    if text or unused_text:
        say(f"{table.name}: {'; '.join(part for part in (text, unused_text) if part)}")


def is_row_number(name: str) -> bool:
    """Return whether a column name denotes row numbers: no name, `Unnamed: 0`, `index`, `row_id`, ..."""
    return _ROW_NUMBERS.fullmatch(_plain(name)) is not None


def describes_clip(name: str) -> bool:
    """Return whether a column name denotes a path, class, group, fold, split or segment."""
    return _plain(name) in (*PATH, *LABEL, *GROUP, "group", "fold", "split", "start", "end")


def _plain(name: str) -> str:
    return re.sub(r"[ _-]+", "_", name).lower()


def parse_clip(table: TextTable, columns: Columns, row: int, path: str) -> Clip:
    """Parse the clip of a row; whitespace around label and group is removed.

    Args:
        table: The table.
        columns: Its columns, as returned by `find`.
        row: Index of the row.
        path: Path of the clip.

    Returns:
        The clip.

    Raises:
        UsageError: A fold, split, start or end is invalid, or a value spans several lines. The message names
            the row.
    """
    values, where = table.rows[row], table.where(row)

    def text(role: str) -> str | None:
        index: int | None = getattr(columns, role)
        value = "" if index is None else values[index].strip()
        if "\n" in value or "\r" in value:
            raise UsageError(
                f"{where}: the {role} spans several lines ({value[:40]!r}): is a quote not closed?"
            )
        return value or None

    start, end = (parse_seconds(text(role), role, where) for role in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise UsageError(
            f"{where}: a segment must end after it starts, got start {start or 0.0:g} and end {end:g} "
            "(seconds)"
        )
    fold, split = parse_fold(text("fold"), where), parse_split(text("split"), where)
    return Clip(path, text("label"), fold, text("group"), split, start, end)


def parse_fold(value: str | None, where: str) -> int | None:
    """Parse a fold (`3`, `fold3`) from 0 to MAX_FOLD; raises UsageError, located at `where`, if invalid."""
    if value is None:
        return None
    match = _FOLD.fullmatch(value)
    if match is None or int(match[1]) > MAX_FOLD:
        raise UsageError(f"{where}: fold must be a whole number from 0 to {MAX_FOLD}, got {value}")
    return int(match[1])


def parse_split(value: str | None, where: str) -> str | None:
    """Parse a split name such as `training`; raises UsageError, located at `where`, for unknown names."""
    if value is None:
        return None
    if value.lower() not in SPLIT_NAMES:
        raise UsageError(f"{where}: split must be one of {', '.join(SPLITS)}, got {value}")
    return SPLIT_NAMES[value.lower()]


def parse_seconds(value: str | None, role: str, where: str) -> float | None:
    """Parse a time.

    Args:
        value: Text of the time in seconds; None if the table has none.
        role: Name of the column's role (start or end), for the message.
        where: Location in the table, for the message.

    Returns:
        The time in seconds; None if `value` is None.

    Raises:
        UsageError: The time is negative, infinite or not a number.
    """
    if value is None:
        return None
    seconds = float(value) if _SECONDS.fullmatch(value) else math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"{where}: {role} must be a time in seconds from 0, such as 2.5, got {value}")
    return seconds
