"""Functions compiled by Numba, their machine code kept on disk.

Numba notices when the file of a cached function changes, not when a file that it calls into does; so the cache's folder is named
after a digest of this package's sources (`code_cache`). Machine code for other processors and other Numba versions lies beside
it, as Numba itself arranges.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numba

from preprocess.code_cache import cache_folder


def _import_lightly() -> None:
    """Let parts of Numba load without the optional packages that they look for, a fifth of a building process's start: what we
    compile calls neither. Without them Numba has no `np.cov` and takes no functions of cffi; all else looks for them anew.
    """
    modules: dict[str, Any] = sys.modules
    for package, part in (("scipy.linalg.cython_blas", "numba.np.arraymath"), ("cffi", "numba.core.typing.cffi_utils")):
        if package not in modules:
            modules[package] = None  # as if it were not installed
            try:
                importlib.import_module(part)
            finally:
                del modules[package]


_import_lightly()


def compiled(function: Callable) -> Callable:
    """`numba.njit` without the GIL; kept on disk where a folder can be written, else compiled in every process."""
    folder = cache_folder()
    if folder is None:
        return numba.njit(nogil=True)(function)
    settings: Any = numba.config
    before, settings.CACHE_DIR = (
        settings.CACHE_DIR,
        str(folder),
    )  # read when the function is decorated; other packages keep theirs
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        settings.CACHE_DIR = before


def inlined(function: Callable) -> Callable:
    """A part of compiled functions that is written into each of them: compiled once less than a function that they call."""
    return numba.njit(inline="always")(function)
