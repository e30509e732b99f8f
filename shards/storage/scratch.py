"""Temporary folders, in the system's temporary folder or elsewhere; those that killed processes left are removed later.

Each has a random name and mode 0700 and is locked while it is in use. Links, and what belongs to others, are never followed or
removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PREFIX = "shardwave-scratch-"
remove = functools.partial(shutil.rmtree, ignore_errors=True)


@contextlib.contextmanager
def folder(parent: Path | None = None, prefix: str = PREFIX, clear: Callable[[Path], object] = remove) -> Iterator[Path]:
    """Make a temporary folder, and remove it at the end of the context.

    Args:
        parent: The folder that it lies in; None: the system's temporary folder (TMPDIR).
        prefix: Beginning of its name; stale folders with this beginning are removed first.
        clear: Removes a stale folder.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_stale(parent, prefix, clear)
    descriptor = None
    while descriptor is None:  # else another process took it for stale before it was locked
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        descriptor = _lock(made, new=True)
    try:
        yield made
    finally:
        remove(made)
        os.close(descriptor)


def remove_stale(parent: Path | None = None, prefix: str = PREFIX, clear: Callable[[Path], object] = remove) -> None:
    """Remove the folders of ended processes of this user; see `folder`."""
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    pattern = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}")  # as `tempfile` names them
    for name in filter(pattern.fullmatch, os.listdir(parent)):
        descriptor = _lock(parent / name)
        if descriptor is not None:
            try:
                clear(parent / name)
            finally:
                os.close(descriptor)


def _lock(folder: Path, new: bool = False) -> int | None:
    """Lock a folder by the descriptor returned; None if it is in use, gone, a link, or not for this user alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    status, locked = os.fstat(descriptor), False
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = folder.exists()
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks: what is left there by killed processes stays
            locked = new
    if locked:
        return descriptor
    os.close(descriptor)
    return None
