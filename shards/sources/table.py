"""Tables of features (CSV or Parquet): one row per clip, one numeric column per feature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.sources import clip_list, groups_file, table_columns, text_table, values_from
from shardwave.shards.sources.suspicious_columns import suspicious
from shardwave.shards.sources.text_table import TextTable
from shardwave.shards.storage.any_path import AnyPath, as_path

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_NO_VALUE = frozenset(
    ("", "na", "n/a", "nan", "null", "none", "inf", "+inf", "-inf", "infinity", "-infinity")
)


class Table(NamedTuple):
    """Clips and features of a table, sorted by path and segment.

    Attributes:
        clips: One clip per row.
        features: float32 [rows, columns].
        names: Names of the feature columns.
    """

    clips: list[Clip]
    features: np.ndarray
    names: list[str]


def read(table: AnyPath, options: BuildOptions | None = None) -> Table:
    """Read a table of features with one row per clip.

    The columns of paths, classes, groups, folds, splits and segments are found as in a label file
    (`table_columns.find`). Without a column of paths, a clip is named after its row number. All other numeric
    columns are features, except row numbers and columns whose names describe clips, such as `class_id`; a
    message names the omitted columns, and those that look like lengths, ids or paths.

    Args:
        table: The CSV or Parquet file.
        options: Names of columns, expressions for class, group and split, and the selected classes.

    Raises:
        UsageError: The table cannot be read, a column or value is missing, or a feature is not a finite
            number.
    """
    options = options or BuildOptions()
    source = text_table.read(table, "--table")
    columns = table_columns.find(source, options)
    if columns.label is None and options.label_from is None:
        raise UsageError(
            f"{source.name} has no column of classes: it has {table_columns.format_columns(source)}; name "
            "one with --label-column"
        )
    if not source.rows:
        raise UsageError(f"{source.name} has no rows: add one line per clip below the header")
    features: dict[str, np.ndarray] = {}
    omitted = []
    dropped = _dropped(source, columns, options)
    for index in columns.others:
        name = source.columns[index]
        if name in dropped:
            continue
        values = (
            None
            if table_columns.is_row_number(name) or table_columns.describes_clip(name)
            else _feature(source, index)
        )
        if values is None:
            omitted.append(index)
        else:
            features[name] = values
    table_columns.report(source, columns, omitted, "not used as features")
    if not features:
        raise UsageError(f"{source.name} has no numeric columns that can be features: add one per feature")
    _remark(source, features)
    paths = [f"row{i:09d}" for i in range(len(source.rows))]
    if columns.path is not None:
        paths = [
            value.strip() or path for value, path in zip(source.column(columns.path), paths, strict=True)
        ]
    clips = [table_columns.parse_clip(source, columns, row, path) for row, path in enumerate(paths)]
    clip_list.check_unique(clips, source.where)
    clips = values_from.apply(clips, options, None)
    if options.groups is not None:
        clips = groups_file.apply(clips, as_path(options.groups))
    selected = sorted(clip_list.select_classes(clips, options.classes), key=lambda row: clips[row].identity)
    clips = [clips[row] for row in selected]
    clip_list.check_splits(clips, source.name)
    return Table(
        clips, np.ascontiguousarray(np.stack(list(features.values()), axis=1)[selected]), list(features)
    )


def _dropped(table: TextTable, columns: table_columns.Columns, options: BuildOptions) -> set[str]:
    """Return the names of `options.drop_columns`; raise UsageError if one of them is no feature column."""
    names = [name.strip() for name in (options.drop_columns or "").split(",") if name.strip()]
    others = {table.columns[index] for index in columns.others}
    for name in names:
        if name not in others:
            reason = "names the clips" if name in table.columns else "is no column"
            raise UsageError(
                f"--drop-columns must name columns of features of {table.name}, {name} {reason}: it has "
                f"{table_columns.format_columns(table)}"
            )
    return set(names)


def _remark(table: TextTable, features: Mapping[str, np.ndarray]) -> None:
    """Print one line with the features that look like lengths, ids or paths."""
    found = suspicious(features)
    if found:
        listed = ", ".join(f"{name} looks like {what}" for name, what in found.items())
        say(
            f"{table.name}: {listed}, not like a feature of the sound; to leave columns out: --drop-columns "
            f"{','.join(found)}"
        )


def _feature(table: TextTable, index: int) -> np.ndarray | None:
    """Parse a column as float32; None if no value is a number or more than half are other text.

    Raises UsageError, with the line, if a column of numbers contains a value that is missing, infinite or not
    a number.
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
        f"{table.where(row)}: column {table.columns[index]} must hold finite numbers{comma}, got "
        f"{texts[row]!r}{others}: correct the value, or remove the row or the column"
    )
