"""What the columns of a label file or a table of features mean: the clip's path, class, group, fold, split and segment."""

from __future__ import annotations

import dataclasses
import math
import re

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import SPLITS, Clip
from shardwave.shards.sources.text_table import TextTable

# Names of columns that are understood, the first one that a table has is taken; case, spaces and hyphens do not matter.
PATH = (
    "path", "filepath", "file_path", "filename", "file_name", "fname", "file", "audio_path", "audio_file", "audio_filename",
    "audio", "slice_file_name", "id", "clip_id", "track_id",
)  # fmt: skip
LABEL = (
    "label", "category", "class", "class_name", "classname", "target_name", "label_name", "primary_label", "genre", "species",
    "word", "emotion", "instrument", "target", "class_id", "classid", "label_id",
)  # fmt: skip  # names of classes before their numbers
GROUP = ("artist", "artist_name", "artist_id", "speaker", "speaker_id", "singer", "subject", "subject_id", "patient_id")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
MAX_FOLD = 9_999
_FOLD = re.compile(r"(?:fold[ _-]?)?([0-9]{1,9})(?:\.0)?", re.IGNORECASE)  # 1.0: what a data frame may make of 1
_SECONDS = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ROW_NUMBERS = re.compile(  # as data frames write their index
    r"|unnamed:_[0-9]+(\.[0-9]+)*|_*index_level_[0-9]+_*|index|idx|row|row_?(id|index|number|nr|names)"
)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column holds what (None: none does); `others` are the columns without a meaning for clips."""

    path: int | None
    label: int | None
    group: int | None
    fold: int | None
    split: int | None
    start: int | None
    end: int | None
    others: list[int]


def find(table: TextTable, options: BuildOptions) -> Columns:
    """Find the columns by `options` (path_column, label_column, group_column) or else by their names.

    The names PATH, LABEL, GROUP, `group`, `fold`, `split`, `start` and `end` are understood. An artist or a speaker is taken as
    the group only where the table has neither folds nor splits of its own. `start` and `end` of a table with `slice_file_name`
    (UrbanSound8K) are times in recordings that the files were cut from, not segments of the files.

    Raises:
        UsageError: A column that an option names does not exist.
    """
    plain = [_plain(name) for name in table.columns]
    taken: set[int] = set()

    def named(option: str, name: str | None) -> int | None:
        if name is None:
            return None
        if name not in table.columns:
            raise UsageError(f"{option} must be a column of {table.name}, got {name!r}: it has {shown_columns(table)}")
        taken.add(table.columns.index(name))
        return table.columns.index(name)

    def known(*names: str) -> int | None:
        free = (plain.index(name) for name in names if name in plain)
        found = next((index for index in free if index not in taken), None)
        taken.update(() if found is None else (found,))
        return found

    path = named("--path-column", options.path_column)
    label = named("--label-column", options.label_column)
    group = named("--group-column", options.group_column)
    path = known(*PATH) if path is None else path
    label = known(*LABEL) if label is None and options.label_from is None else label
    fold, split = known("fold"), known("split")
    group = known("group") if group is None else group
    if group is None and fold is None and split is None and options.group_from is None:
        group = known(*GROUP)
    start = end = None
    if path is not None and "slice_file_name" not in plain:
        start, end = known("start"), known("end")
    others = [index for index in range(len(table.columns)) if index not in taken]
    return Columns(path, label, group, fold, split, start, end, others)


def shown_columns(table: TextTable) -> str:
    """The table's column names for a message."""
    names = [name or "(no name)" for name in table.columns]
    return (", ".join(names[:20]) + (", ..." if len(names) > 20 else "")) or "no columns"


def tell(table: TextTable, columns: Columns, unused: list[int], why: str = "not used") -> None:
    """Say in one line which columns were understood under other names than ours, and which were not used."""
    read = [(index, role) for role in ("path", "label", "group") if (index := getattr(columns, role)) is not None]
    parts = [f"{table.columns[index]} as {role}" for index, role in read if table.columns[index] != role]
    text = f"column {parts[0].replace(' as ', ' is read as ', 1)}" + "".join(f", {part}" for part in parts[1:]) if parts else ""
    names = [table.columns[index] or "a column without a name" for index in unused]
    left = f"{why}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else ""
    if text or left:
        say(f"{table.name}: {'; '.join(part for part in (text, left) if part)}")


def is_row_number(name: str) -> bool:
    """Whether a column's name says that it only numbers the rows: no name, `Unnamed: 0`, `index`, `row_id`, ..."""
    return _ROW_NUMBERS.fullmatch(_plain(name)) is not None


def means_clip(name: str) -> bool:
    """Whether a column's name says that it names a clip, its class, its group or its place in a file, and so is no feature."""
    return _plain(name) in (*PATH, *LABEL, *GROUP, "group", "fold", "split", "start", "end")


def _plain(name: str) -> str:
    return re.sub(r"[ _-]+", "_", name).lower()


def clip(table: TextTable, columns: Columns, row: int, path: str) -> Clip:
    """The clip that a row describes; label and group are without surrounding whitespace.

    Raises:
        UsageError: A fold, split, start or end is not one, or a label or group spans lines. The message names the row.
    """
    values, where = table.rows[row], table.where(row)

    def text(role: str) -> str | None:
        index: int | None = getattr(columns, role)
        value = "" if index is None else values[index].strip()
        if "\n" in value or "\r" in value:
            raise UsageError(f"{where}: the {role} spans several lines ({value[:40]!r}): is a quote left open?")
        return value or None

    start, end = (parse_seconds(text(role), role, where) for role in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise UsageError(f"{where}: a segment must end after it starts, got start {start or 0.0:g} and end {end:g} (seconds)")
    fold, split = parse_fold(text("fold"), where), parse_split(text("split"), where)
    return Clip(path, text("label"), fold, text("group"), split, start, end)


def parse_fold(value: str | None, where: str) -> int | None:
    """The number of a fold (`3`, `fold3`); raises UsageError unless it is a whole number from 0 to MAX_FOLD."""
    if value is None:
        return None
    match = _FOLD.fullmatch(value)
    if match is None or int(match[1]) > MAX_FOLD:
        raise UsageError(f"{where}: fold must be a whole number from 0 to {MAX_FOLD}, got {value}")
    return int(match[1])


def parse_split(value: str | None, where: str) -> str | None:
    """The split that a name such as `train`, `training` or `validation` means; raises UsageError for other names."""
    if value is None:
        return None
    if value.lower() not in SPLIT_NAMES:
        raise UsageError(f"{where}: split must be one of {', '.join(SPLITS)}, got {value}")
    return SPLIT_NAMES[value.lower()]


def parse_seconds(value: str | None, role: str, where: str) -> float | None:
    """A time in seconds; raises UsageError unless it is a finite number from 0."""
    if value is None:
        return None
    seconds = float(value) if _SECONDS.fullmatch(value) else math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"{where}: {role} must be a time in seconds from 0, such as 2.5, got {value}")
    return seconds
