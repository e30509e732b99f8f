"""Progress on standard error, silent under `--quiet`: bars where it is a terminal, and lines."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from preprocess.redact import redact


def bar(**options: Any) -> Any:
    """A tqdm bar on standard error; silent where that is no terminal."""
    from tqdm import tqdm

    return tqdm(file=sys.stderr, disable=True if quiet() else None, dynamic_ncols=True, **options)


_unsaid = False


def say(text: str) -> None:
    """Print a remark on standard error, passwords in URLs masked."""
    if not (quiet() or _unsaid):
        print(redact(text), file=sys.stderr, flush=True)


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
