"""glibc's malloc told to keep what a training step frees."""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> None:
    """Serve large blocks from the heap and keep it, for this process; does nothing where the C library is not glibc.

    By default each activation of a few MB is mapped anew in every step and its pages cleared by the kernel: without that the
    2-convolution CNN at 128x128 trains 1.3 to 1.4 times faster on the CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    library.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
