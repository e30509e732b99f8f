"""Reader of the tables given to `--labels` and `--table`: strict CSV, and Parquet."""

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
    """A table of text values, unchanged from the file; an empty value is missing.

    Attributes:
        name: File name, for messages.
        columns: Column names without surrounding whitespace; "" for a column without a name.
        rows: Values, one list per row, each as long as `columns`.
        numbers: For each row, the line on which it begins (CSV), or 1, 2, ... (Parquet).
        unit: "line" or "row", as counted by `numbers`.
    """

    name: str
    columns: list[str]
    rows: list[list[str]]
    numbers: list[int]
    unit: str = "line"

    def where(self, row: int) -> str:
        """Return the location of a row for a message: `labels.csv line 7`."""
        return f"{self.name} {self.unit} {self.numbers[row]}"

    def column(self, index: int) -> list[str]:
        """Return the values of a column."""
        return [row[index] for row in self.rows]


def read(location: AnyPath, option: str) -> TextTable:
    """Read a CSV file (UTF-8; commas, tabs or semicolons) or a Parquet file, recognised by its content.

    Args:
        location: The file, on disk or in an object store.
        option: The command-line option that names the file, for messages.

    Raises:
        UsageError: The file cannot be read, a row has more or fewer values than the header has columns, a
            quote is not closed, the text is not UTF-8 or contains a NUL byte, or two columns have the same
            name. The message names the line or row of a wrong value.
    """
    try:
        data = any_path.read_bytes(location)
    except OSError as error:
        raise UsageError(
            f"{option} must be a readable file, got {location}: {error.strerror or error}"
        ) from None
    table = _parquet(str(location), data) if data.startswith(PARQUET_MAGIC) else _csv(str(location), data)
    repeated = next(
        (name for i, name in enumerate(table.columns) if name and name in table.columns[:i]), None
    )
    if repeated is not None:
        raise UsageError(f"{location}: two columns have the name {repeated!r}: rename or remove one")
    return table


def read_header(location: AnyPath) -> list[str]:
    """Read the column names of a CSV file; an empty list if the file cannot be read as CSV."""
    try:
        text = _text(str(location), any_path.read_bytes(location))
        return [
            name.strip()
            for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)), [])
        ]
    except (OSError, UsageError, csv.Error):
        return []


def _text(name: str, data: bytes) -> str:
    """Decode a CSV file; raises UsageError if it is not UTF-8 text."""
    if data.startswith(ZIP_MAGIC):
        raise UsageError(
            f"{name} is a spreadsheet or an archive, not CSV or Parquet: save the table as CSV (UTF-8)"
        )
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise UsageError(
            f"{name} line {line}: a NUL byte, as in UTF-16 or in binary files: save the table as CSV in UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{name} line {line}: byte 0x{data[error.start]:02x} is not UTF-8 (is the file in Latin-1?): "
            "save the table as CSV in UTF-8"
        ) from None


def _delimiter(text: str) -> str:
    """Guess the delimiter from the first line: a tab if present, a semicolon if there is no comma."""
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
            f'{name} line {line}: a quote (") that begins on this line is not closed ({error}): '
            "close it, or double the quotes inside the value"
        ) from None
    return TextTable(name, columns, rows, lines)


def _wrong_length(where: str, row: list[str], columns: list[str], delimiter: str) -> str:
    values = f"{len(row)} value{'s' if len(row) > 1 else ''}"
    counts = f"{values} under {len(columns)} column{'s' if len(columns) > 1 else ''}"
    remedy = "add the missing values"
    if len(row) > len(columns):
        remedy = f"quote values that contain {DELIMITERS[delimiter]}"
    shown = ", ".join(map(repr, row[:6])) + (", ..." if len(row) > 6 else "")
    return f"{where}: {counts} ({shown}): {remedy}"


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
        raise UsageError(f"{name} row {nul}: a value contains a NUL character: remove it")
    return TextTable(
        name,
        [str(column).strip() for column in table.column_names],
        rows,
        list(range(1, len(rows) + 1)),
        "row",
    )


def _texts(values: list[Any]) -> list[str]:
    """Convert a Parquet column to text; missing values and NaN become empty.

    Floats that are all integers are written without a decimal point: pandas stores integers with missing
        values as floats.
    """
    numbers = [value for value in values if isinstance(value, float) and value == value]
    whole = bool(numbers) and all(value.is_integer() for value in numbers)
    return [
        ""
        if value is None or value != value
        else str(int(value))
        if whole and isinstance(value, float)
        else str(value)
        for value in values
    ]
