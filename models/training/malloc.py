"""Settings of glibc's malloc for training on the CPU."""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> None:
    """Make malloc allocate large blocks on the heap and keep freed memory, for this process.

    By default malloc maps each activation of a few MB anew in every step, and the kernel clears its pages.
    Without these costs the 2-convolution CNN trains 1.3 to 1.4 times faster on 128x128 images. The function
    has no effect if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    library.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
