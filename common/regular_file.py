"""Open regular files only. A named pipe, a socket or a device is an error, because opening one can block."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

NOT_REGULAR = "not a regular file"


def opener(path: str, flags: int) -> int:
    """Open a regular file; for the argument `opener` of `open` and `FileIO`.

    Args:
        path: The file.
        flags: Flags of `os.open`.

    Returns:
        The file descriptor.

    Raises:
        OSError: The file cannot be opened, or is not regular (`strerror` is then NOT_REGULAR).
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device can have side effects
        raise OSError(errno.EINVAL, NOT_REGULAR, path)
    # The file may have been replaced since. O_NONBLOCK prevents waiting for the writer of a pipe; regular
    # files ignore it.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_REGULAR, path)
    return descriptor


def read_bytes(path: Path | str) -> bytes:
    """Return the content of the regular file `path`; raises OSError as `opener` does."""
    with open(path, "rb", opener=opener) as file:
        return file.read()
