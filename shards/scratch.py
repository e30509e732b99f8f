"""Temporary folders of this process, in the system's temporary folder or elsewhere.

Each has a random name and mode 0700 and is locked while its process lives; folders that killed processes left are removed when
the next one is made. Links, and whatever belongs to somebody else, are never followed or removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "shardwave-scratch-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_held: dict[Path, int] = {}  # folder -> the descriptor that keeps it locked


def make(parent: Path | None = None, prefix: str = PREFIX) -> Path:
    """Make a temporary folder, which is in use until `remove` or the end of this process.

    Args:
        parent: the folder that it lies in; None: the system's temporary folder (TMPDIR).
        prefix: beginning of its name; stale folders with this beginning are removed.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_stale(parent, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):  # another process took it for stale before it was locked
            descriptor = os.open(folder, _DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                _held[folder] = descriptor
                return folder
            os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder that `make` returned."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(_held.pop(folder))


@contextlib.contextmanager
def folder(parent: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Make a temporary folder as `make` does, and remove it at the end."""
    made = make(parent, prefix)
    try:
        yield made
    finally:
        remove(made)


def sweep() -> None:
    """Remove this process's folders, and stale ones of others from the system's temporary folder."""
    for held in list(_held):
        remove(held)
    _remove_stale(Path(tempfile.gettempdir()), PREFIX)


def _remove_stale(parent: Path, prefix: str) -> None:
    """Remove folders of ended processes of this user."""
    pattern = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}")  # as `tempfile` names them
    with os.scandir(parent) as entries:
        names = [entry.path for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    for name in names:
        try:
            descriptor = os.open(name, _DIRECTORY)
        except OSError:  # gone, a link by now, or another user's
            continue
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(name, ignore_errors=True)
        except BlockingIOError:  # in use
            pass
        finally:
            os.close(descriptor)
