"""Decorators for functions compiled by Numba, with a cache of the machine code on disk.

Numba recompiles a cached function if its own file changes, but not if the file of a function that it calls
changes. The name of the cache folder therefore contains a digest of the sources of `preprocess`. Numba itself
separates machine code for other processors and Numba versions within the folder. Numba is imported when the
first function is decorated; `holds_engine` does not import it.
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
    """Return the folder of the cache, or None if no folder can be written.

    It is below NUMBA_CACHE_DIR if that is set, else below `__pycache__` of the package or the cache folder of
    the user.
    """
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
    """Return whether the cache has machine code of the engine for its present sources."""
    folder = cache_folder()
    return folder is not None and any(folder.glob(f"{Path(__file__).parent.name}_*/*.nbi"))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with `numba.njit(nogil=True)` and cache its machine code on disk.

    If there is no cache folder, the function is compiled in every process.
    """
    import numba

    folder = cache_folder()
    if folder is None:
        return numba.njit(nogil=True)(function)
    settings: Any = numba.config
    # Numba reads CACHE_DIR when it decorates the function; the folder of other packages' functions does not
    # change.
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(folder)
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        settings.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that Numba inlines into compiled functions, which saves its separate compilation."""
    import numba

    return numba.njit(inline="always")(function)
