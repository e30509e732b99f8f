"""A table of features (CSV or Parquet): one row a clip, numeric columns are features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preprocess.errors import UsageError
from shards.clip import Clip
from shards.sources.csv_labels import check, parse_fold, parse_split

PATH_COLUMNS = ("path", "filename", "file", "id")


class Table(NamedTuple):
    """The rows of a table, sorted by path."""

    clips: list[Clip]
    features: np.ndarray  # float32 [rows, columns]
    names: list[str]  # of the columns
    left_out: list[str]  # columns that hold no numbers


def read(table: Path, label_column: str = "label", group_column: str | None = None) -> Table:
    """Read `table`: the columns label, group, fold, split, a path (one of PATH_COLUMNS, else the row's number), and features.

    Raises UsageError for a column that is not there and for values that are empty, not numbers or not finite.
    """
    frame = _frame(table)
    names = [str(name) for name in frame.columns]
    some = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    for option, column in (("--label-column", label_column), ("--group-column", group_column)):
        if column is not None and column not in names:
            raise UsageError(f"{option} must be a column of {table}, got {column}: it has {some}")
    if not len(frame):
        raise UsageError(f"{table} has no rows")
    path_column = next((name for name in PATH_COLUMNS if name in names and name not in (label_column, group_column)), None)
    special = {label_column, group_column, path_column, "fold", "split", "group"}
    columns: list[str] = []
    left_out: list[str] = []
    for name in names:
        if name not in special:
            (columns if _numeric(frame[name], f"{table} column {name}") else left_out).append(name)
    if not columns:
        raise UsageError(f"{table} has no numeric columns beside {label_column}: it needs one per feature")
    group = group_column or ("group" if "group" in names else None)
    clips = [
        Clip(
            _text(row.get(path_column)) or f"row{i:09d}" if path_column else f"row{i:09d}",
            _text(row[label_column]),
            parse_fold(_text(row.get("fold")), f"{table} row {i + 1}"),
            _text(row[group]) if group else None,
            parse_split(_text(row.get("split")), f"{table} row {i + 1}"),
        )
        for i, row in enumerate(frame[[name for name in names if name in special]].to_dict("records"))
    ]
    check(clips, str(table))
    order = sorted(range(len(clips)), key=lambda i: clips[i].path)
    values = frame[columns].to_numpy(np.float32, na_value=np.nan)[order]
    return Table([clips[i] for i in order], np.ascontiguousarray(values), columns, left_out)


def _frame(table: Path) -> Any:
    import pandas

    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if table.suffix.lower() not in readers:
        raise UsageError(f"--table must be a .csv or .parquet file, got {table}")
    try:
        return readers[table.suffix.lower()](table)
    except OSError as error:
        raise UsageError(f"--table must be a readable file, got {table}: {error.strerror or error}") from None
    except ValueError as error:  # pandas' and Arrow's own parse errors are ValueErrors
        raise UsageError(f"--table {table} cannot be read: {error}") from None


def _numeric(column: Any, where: str) -> bool:
    """Whether a column holds numbers; raises UsageError, naming the row, where it does but for some value that is not finite."""
    import pandas

    values = pandas.to_numeric(column, errors="coerce").astype("float64").to_numpy()
    bad = ~np.isfinite(values) | (np.abs(values) > np.finfo(np.float32).max)
    if not bad.any():
        return True
    if bad.mean() > 0.5 and not pandas.api.types.is_numeric_dtype(column):
        return False
    row = int(np.flatnonzero(bad)[0])
    raise UsageError(
        f"{where} must hold finite numbers, got {column.iloc[row]!r} in row {row + 1} ({bad.sum()} such rows): mend or drop it"
    )


def _text(value: object) -> str | None:
    if value is None or value != value:  # a missing value is not equal to itself
        return None
    return str(value).strip() or None
