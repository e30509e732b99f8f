"""Write CSV text that every reader parses into the same rows, for all characters in file names and labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    r"""Return `rows` as CSV text with the line end `\n`.

    All fields of a row with a carriage return are quoted: Python's writer does not quote a single `\r` with
    this line end, and readers take it for the end of the line.
    """
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any("\r" in str(value) for value in row) else plain).writerow(row)
    return text.getvalue()


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    """Return `rows` as CSV in UTF-8; file names that are not UTF-8 keep their bytes."""
    return csv_text(rows).encode("utf-8", "surrogateescape")
