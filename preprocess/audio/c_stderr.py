"""Silence for C libraries that write to the C standard error: libmpg123, inside libsndfile, comments on sound MP3 files too."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any

_lock = threading.Lock()
_depth = 0
_before: int | None = None


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Meanwhile C's `stderr` leads to /dev/null. Python's `sys.stderr` and file descriptor 2 stay what they are, so that bars and
    tracebacks of other threads still show; overlapping uses by several threads end with the last of them.
    """
    global _depth, _before
    stream, null = _streams()
    with _lock:
        if _depth == 0:
            _before, stream.value = stream.value, null
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                stream.value = _before


@functools.cache
def _streams() -> tuple[ctypes.c_void_p, Any]:
    """The C library's variable `stderr` (a FILE *), and an open FILE * on /dev/null."""
    library = ctypes.CDLL(None)
    library.fopen.restype, library.fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
    name = "__stderrp" if sys.platform == "darwin" else "stderr"
    return ctypes.c_void_p.in_dll(library, name), library.fopen(b"/dev/null", b"w")
