"""The temporary folder of a search: sockets, and Ray's session. What killed searches left is removed when the next one starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

PREFIX, OWNER = "sw-", "owner"  # the folder's name, and the file in it that its process holds locked
LONGEST = 31  # characters of the folder around it: a socket's path is at most 107, and Ray adds 64 to the folder's


class TemporaryFolder:
    """A folder for this user alone, in use until it is closed or its process ends."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        if len(os.fsencode(base)) > LONGEST:
            base = Path("/tmp")
        remove_stale(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        new = self.path / f".{OWNER}"
        self._lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: the folder then stays if this process is killed
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(new, self.path / OWNER)  # it is never seen unlocked

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_stale(base: Path) -> None:
    """Remove the folders in `base` that a process of this user made with `TemporaryFolder` and that no process holds any more.

    Links are not followed, and what lacks the owner's file stays.
    """
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
                continue
            lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
