"""A table of features (CSV or Parquet): one row a clip, numeric columns are features."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.sources import clip_list, table_columns, text_table, values_from
from shardwave.shards.sources.text_table import TextTable
from shardwave.shards.storage.any_path import AnyPath

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_NO_VALUE = frozenset(("", "na", "n/a", "nan", "null", "none", "inf", "+inf", "-inf", "infinity", "-infinity"))


class Table(NamedTuple):
    """The rows of a table, sorted by path and segment."""

    clips: list[Clip]
    features: np.ndarray  # float32 [rows, columns]
    names: list[str]  # of the columns


def read(table: AnyPath, options: BuildOptions | None = None) -> Table:
    """Read a table of features, one row a clip.

    Columns of paths, classes, groups, folds, splits and segments are found as in a label file (`table_columns.find`); without
    paths a row is named by its number. Of the other columns those that hold numbers are features, unless their name says that
    they number the rows or name the class in another way; a message names what is left out.

    Raises:
        UsageError: The table is not readable, a column or value is missing, or a feature is not a finite number.
    """
    options = options or BuildOptions()
    source = text_table.read(table, "--table")
    columns = table_columns.find(source, options)
    if columns.label is None and options.label_from is None:
        raise UsageError(
            f"{source.name} has no column of classes: it has {table_columns.shown_columns(source)}; name one with --label-column"
        )
    if not source.rows:
        raise UsageError(f"{source.name} has no rows")
    features: dict[str, np.ndarray] = {}
    left_out = []
    for index in columns.others:
        name = source.columns[index]
        values = None if table_columns.is_row_number(name) or table_columns.means_clip(name) else _feature(source, index)
        if values is None:
            left_out.append(index)
        else:
            features[name] = values
    table_columns.tell(source, columns, left_out, "no features")
    if not features:
        raise UsageError(f"{source.name} has no numeric columns beside those that describe clips: it needs one per feature")
    paths = [f"row{i:09d}" for i in range(len(source.rows))]
    if columns.path is not None:
        paths = [value.strip() or path for value, path in zip(source.column(columns.path), paths, strict=True)]
    clips = [table_columns.clip(source, columns, row, path) for row, path in enumerate(paths)]
    clip_list.check_unique(clips, source.where)
    clips = values_from.apply(clips, options, None)
    chosen = sorted(clip_list.of_classes(clips, options.classes), key=lambda row: clips[row].identity)
    clips = [clips[row] for row in chosen]
    clip_list.check_splits(clips, source.name)
    return Table(clips, np.ascontiguousarray(np.stack(list(features.values()), axis=1)[chosen]), list(features))


def _feature(table: TextTable, index: int) -> np.ndarray | None:
    """A column as float32; None where it is no column of numbers: where no value is a number, or most are some other text.

    Raises UsageError, naming the line, where it is one but for a value that is missing, not finite or not a number.
    """
    texts = table.column(index)
    numbers = np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts])
    bad = ~(np.abs(numbers) <= np.finfo(np.float32).max)
    if not bad.any():
        return numbers.astype(np.float32)
    rows = np.flatnonzero(bad)
    words = sum(texts[row].strip().lower() not in _NO_VALUE and not np.isfinite(numbers[row]) for row in rows)
    if np.isnan(numbers).all() or words > len(texts) / 2:
        return None
    row = int(rows[0])
    others = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
    comma = ", decimals with a point" if "," in texts[row] else ""
    raise UsageError(
        f"{table.where(row)}: column {table.columns[index]} must hold finite numbers{comma}, got {texts[row]!r}{others}: "
        "correct the value, or remove the row or the column"
    )
