"""Progress on standard error: bars where it is a terminal, and lines that always appear."""

from __future__ import annotations

import os
import sys
from typing import Any


def bar(**options: Any) -> Any:
    """A tqdm bar on standard error; silent where that is no terminal or SHARDWAVE_QUIET=1."""
    from tqdm import tqdm

    return tqdm(
        file=sys.stderr, disable=True if os.environ.get("SHARDWAVE_QUIET") == "1" else None, dynamic_ncols=True, **options
    )


def say(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)
