"""Temporary folders. Creating one removes the stale folders that killed processes left behind.

Each folder has a random name and mode 0700, and is locked while it is in use. Symbolic links and folders of
other users are never followed or removed.
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
def folder(
    parent: Path | None = None, prefix: str = PREFIX, clear: Callable[[Path], object] = remove
) -> Iterator[Path]:
    """Create a temporary folder, and remove it at the end of the context.

    Processes that are forked inside the context do not remove the folder when they end.

    Args:
        parent: Parent folder; by default the system's temporary folder (TMPDIR).
        prefix: Prefix of the name; stale folders with this prefix are removed first.
        clear: Function that removes a stale folder.

    Yields:
        Path of the folder.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_stale(parent, prefix, clear)
    descriptor = None
    while descriptor is None:  # None if another process removed the folder as stale before it was locked
        created = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        descriptor = _lock(created, new=True)
    creator = os.getpid()
    try:
        yield created
    finally:
        if os.getpid() == creator:
            remove(created)
        os.close(descriptor)


def remove_stale(
    parent: Path | None = None, prefix: str = PREFIX, clear: Callable[[Path], object] = remove
) -> None:
    """Remove the temporary folders of this user's processes that have ended.

    Args:
        parent: Parent folder; by default the system's temporary folder (TMPDIR).
        prefix: Prefix of the names.
        clear: Function that removes a folder.
    """
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
    """Lock a folder by the returned descriptor; None if it is in use, missing, a link or not private."""
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
        except OSError:  # the file system has no locks: stale folders cannot be recognized there
            locked = new
    if locked:
        return descriptor
    os.close(descriptor)
    return None
