"""CSV text that reads back as it was written, whatever file names and labels hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    r"""Return `rows` as CSV, one line each, ended by `\n`.

    A row with a carriage return is quoted throughout: with this line end Python's writer leaves a lone `\r` unquoted, which every
    reader takes for the end of the line.
    """
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any("\r" in str(value) for value in row) else plain).writerow(row)
    return text.getvalue()


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    """Return `rows` as CSV in UTF-8; of a file name that is not UTF-8, its own bytes."""
    return csv_text(rows).encode("utf-8", "surrogateescape")
