"""Opening files that must be regular: a named pipe, a socket or a device is refused instead of waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

NOT_REGULAR = "not a regular file"


def opener(path: str, flags: int) -> int:
    """Open `path` as an `opener` of `open` and `FileIO`; returns the descriptor.

    Raises:
        OSError: the file cannot be opened, or it is not a regular file (its `strerror` is then NOT_REGULAR).
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: opening a device may already do something
        raise OSError(errno.EINVAL, NOT_REGULAR, path)
    # The file may have been replaced since: O_NONBLOCK does not wait for a pipe's writer, and changes nothing for regular files.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_REGULAR, path)
    return descriptor


def read_bytes(path: Path | str) -> bytes:
    """Return the content of the regular file `path`; raises OSError as `opener` does."""
    with open(path, "rb", opener=opener) as file:
        return file.read()
