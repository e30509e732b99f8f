"""Functions compiled by Numba, their machine code kept on disk.

Numba notices when the file of a cached function changes, not when a file that it calls into does; so the cache's folder is named
after a digest of the sources of `preprocess`. Machine code for other processors and other Numba versions lies beside it, as Numba
itself arranges. Numba is loaded with the first function: `holds_engine` does without.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


@functools.cache
def cache_folder() -> Path | None:
    """The first that can be written of NUMBA_CACHE_DIR, the package's own `__pycache__` and the user's cache folder."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.read_bytes())
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardwave"
    named = os.environ.get("NUMBA_CACHE_DIR")
    for base in [Path(named)] if named else [package / "__pycache__", user]:
        folder = base / f"compiled-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def holds_engine() -> bool:
    """Whether machine code of the engine, as its sources are now, is kept."""
    folder = cache_folder()
    return folder is not None and any(folder.glob(f"{Path(__file__).parent.name}_*/*.nbi"))


def compiled(function: Callable) -> Callable:
    """`numba.njit` without the GIL; kept on disk where a folder can be written, else compiled in every process."""
    import numba

    folder = cache_folder()
    if folder is None:
        return numba.njit(nogil=True)(function)
    settings: Any = numba.config
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(folder)  # read when the function is decorated; others keep theirs
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        settings.CACHE_DIR = before


def inlined(function: Callable) -> Callable:
    """A part of compiled functions that is written into each of them: compiled once less than a function that they call."""
    import numba

    return numba.njit(inline="always")(function)
