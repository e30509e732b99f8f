"""Progress on standard error, silent under `--quiet`: bars where it is a terminal, and lines."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from preprocess.printable import one_line, write_line
from preprocess.redact import redact


def bar(**options: Any) -> Any:
    """A tqdm bar on standard error; silent where that is no terminal."""
    from tqdm import tqdm

    if "desc" in options:  # the name of a set or of a file
        options["desc"] = one_line(str(options["desc"]))
    return tqdm(file=sys.stderr, disable=True if quiet() else None, dynamic_ncols=True, **options)


_unsaid = False


def say(*lines: str) -> None:
    """Print a remark of one or several lines on standard error.

    Passwords in URLs are masked; line ends within a line, of a file's name, are escaped.
    """
    if not silent():
        write_line(redact("\n".join(map(one_line, lines))), sys.stderr)


def silent() -> bool:
    """Whether remarks are not shown, so that nothing need be found out for them."""
    return quiet() or _unsaid


@contextlib.contextmanager
def unsaid() -> Iterator[None]:
    """Leave out the remarks of what works for somebody else on a temporary set; bars still show."""
    global _unsaid
    before, _unsaid = _unsaid, True
    try:
        yield
    finally:
        _unsaid = before


def quiet() -> bool:
    """Whether `--quiet` was given (SHARDWAVE_QUIET=1: started processes know it too)."""
    return os.environ.get("SHARDWAVE_QUIET") == "1"
