"""Temporary folders that do not outlive a killed process for longer than until the next one starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | str | None = None) -> Iterator[Path]:
    """Make a private folder (mode 0700), lock it while the context lasts, and remove it at the end.

    Folders with the same prefix that killed processes of this user left behind are removed first: those whose lock is free.
    Symbolic links, files and folders of other users are left alone.

    Args:
        prefix: The beginning of the folder's name, one for each kind of use (`shardwave-predict-`).
        parent: The folder to make it in; this machine's temporary folder (TMPDIR) by default.

    Yields:
        The new, empty folder.
    """
    place = Path(tempfile.gettempdir() if parent is None else parent)
    remove_stale(prefix, place)
    hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=place))  # it gets its name once it is locked
    folder = hidden.with_name(hidden.name.removeprefix("."))
    descriptor = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody takes the folder for stale either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(hidden, folder)
        yield folder
    finally:
        for path in (hidden, folder):
            shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def remove_stale(prefix: str, parent: Path) -> None:
    """Remove the folders in `parent` with this prefix that belong to this user and that no process has locked."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_free(Path(entry.path))


def _remove_if_free(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError where it is in use
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
