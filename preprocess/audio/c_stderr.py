"""Suppress messages of C libraries on standard error, which libmpg123 prints even for valid MP3 files."""

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
    """Redirect the `stderr` stream of C to /dev/null within the context.

    Python's `sys.stderr` and file descriptor 2 do not change, so that progress bars and tracebacks of other
    threads are still visible. If several threads use the context at a time, the redirection ends with the
    last one.
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
    """Return the variable `stderr` of the C library (a FILE *) and an open FILE * on /dev/null."""
    library = ctypes.CDLL(None)
    library.fopen.restype, library.fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
    name = "__stderrp" if sys.platform == "darwin" else "stderr"
    return ctypes.c_void_p.in_dll(library, name), library.fopen(b"/dev/null", b"w")
