"""Tables as text: the one reader of `--labels` and `--table`, for CSV (strict) and Parquet files."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
PARQUET_MAGIC, ZIP_MAGIC = b"PAR1", b"PK\x03\x04"


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table whose values are text exactly as the file has them; an empty text is a missing value."""

    name: str  # of the file, for messages
    columns: list[str]  # without surrounding whitespace; "" for a column without a name
    rows: list[list[str]]  # each as long as `columns`
    numbers: list[int]  # of each row: the line on which it begins (CSV), or 1, 2, ... (Parquet)
    unit: str = "line"  # what `numbers` counts: line or row

    def where(self, row: int) -> str:
        """Name the place of a row in a message: `labels.csv line 7`."""
        return f"{self.name} {self.unit} {self.numbers[row]}"

    def column(self, index: int) -> list[str]:
        """The values of one column."""
        return [row[index] for row in self.rows]


def read(location: AnyPath, option: str) -> TextTable:
    """Read a CSV file (UTF-8; commas, tabs or semicolons) or a Parquet file; the content decides which it is.

    Args:
        location: The file, on disk or in an object store.
        option: The command line's option that named it, for messages.

    Raises:
        UsageError: The file is not readable as such a table. The message names the line: a row with more or fewer values than
            the header has columns, a quote that is not closed, bytes that are not UTF-8, a NUL byte. Two columns of one name are
            refused too.
    """
    try:
        data = any_path.read_bytes(location)
    except OSError as error:
        raise UsageError(f"{option} must be a readable file, got {location}: {error.strerror or error}") from None
    table = _parquet(str(location), data) if data.startswith(PARQUET_MAGIC) else _csv(str(location), data)
    twice = next((name for i, name in enumerate(table.columns) if name and name in table.columns[:i]), None)
    if twice is not None:
        raise UsageError(f"{location}: two columns have the name {twice!r}: rename or remove one")
    return table


def header(location: AnyPath) -> list[str]:
    """The column names of a CSV file; empty where it is not readable as one."""
    try:
        text = _text(str(location), any_path.read_bytes(location))
        return [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)), [])]
    except (OSError, UsageError, csv.Error):
        return []


def _text(name: str, data: bytes) -> str:
    """The text of a CSV file; raises UsageError where it is not UTF-8."""
    if data.startswith(ZIP_MAGIC):
        raise UsageError(f"{name} is a spreadsheet or an archive, not CSV or Parquet: save the table as CSV (UTF-8)")
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise UsageError(f"{name} line {line}: a NUL byte, as in UTF-16 or in binary files: save the table as CSV in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{name} line {line}: byte 0x{data[error.start]:02x} is not UTF-8 (is the file in Latin-1?): "
            "save the table as CSV in UTF-8"
        ) from None


def _delimiter(text: str) -> str:
    """What separates the columns, by the first line: tabs, or commas, or semicolons where there is no comma."""
    first = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""
    return "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","


def _csv(name: str, data: bytes) -> TextTable:
    text = _text(name, data)
    delimiter = _delimiter(text)
    if delimiter != ",":
        say(f"{name}: columns are separated by {DELIMITERS[delimiter]}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for row in reader:
            if any(value and not value.isspace() for value in row):
                if not columns:
                    columns = [value.strip() for value in row]
                elif len(row) != len(columns):
                    raise UsageError(_wrong_length(f"{name} line {line}", row, columns, delimiter))
                else:
                    rows.append(row)
                    lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(
            f'{name} line {line}: a quote (") that begins there is not closed as CSV asks for ({error}): '
            "close it, or write quotes inside of a value twice"
        ) from None
    return TextTable(name, columns, rows, lines)


def _wrong_length(where: str, row: list[str], columns: list[str], delimiter: str) -> str:
    few = f"{len(row)} value{'s' if len(row) > 1 else ''} under {len(columns)} column{'s' if len(columns) > 1 else ''}"
    remedy = f"put a value that holds {DELIMITERS[delimiter]} into quotes" if len(row) > len(columns) else "give every column one"
    shown = ", ".join(map(repr, row[:6])) + (", ..." if len(row) > 6 else "")
    return f"{where}: {few} ({shown}): {remedy}"


def _parquet(name: str, data: bytes) -> TextTable:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
        columns = [_texts(column.to_pylist()) for column in table.columns]
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{name} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    rows = [list(row) for row in zip(*columns, strict=True)]
    nul = next((number for number, row in enumerate(rows, 1) if any("\0" in value for value in row)), None)
    if nul is not None:
        raise UsageError(f"{name} row {nul}: a value holds a NUL character: remove it")
    return TextTable(name, [str(one).strip() for one in table.column_names], rows, list(range(1, len(rows) + 1)), "row")


def _texts(values: list[Any]) -> list[str]:
    """A Parquet column as text: missing values and NaN are empty; whole numbers have no decimal point, also where a data frame
    made floats of them because some are missing.
    """
    numbers = [value for value in values if isinstance(value, float) and value == value]
    whole = bool(numbers) and all(value.is_integer() for value in numbers)
    return [
        "" if value is None or value != value else str(int(value)) if whole and isinstance(value, float) else str(value)
        for value in values
    ]
