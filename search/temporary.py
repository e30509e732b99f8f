"""The temporary folder of a search: sockets, and Ray's session. What killed searches left is removed when the next one starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

PREFIX = "swsearch-"
NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")  # as mkdtemp completes it
LONGEST = 25  # characters of the folder around it: a socket's path has at most 107, of which Ray adds 64


class TemporaryFolder:
    """A folder for this user alone, locked until it is closed or its process ends."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        if len(os.fsencode(base)) > LONGEST:
            base = Path("/tmp")
        remove_stale(base)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # a file system without locks: the folder stays if this process is killed
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self.path.exists():  # not taken for a stale one before it was locked
                break
            os.close(self._lock)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_stale(base: Path) -> None:
    """Remove the folders in `base` that this user's processes made with `TemporaryFolder` and that none holds any more.

    Symbolic links are not followed.
    """
    with os.scandir(base) as entries:
        names = [entry.name for entry in entries if NAME.fullmatch(entry.name)]
    for name in names:
        with contextlib.suppress(OSError):  # in use, gone meanwhile, a link, or no folder
            lock = os.open(base / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                about = os.fstat(lock)
                if about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) == 0o700:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(base / name, ignore_errors=True)
            finally:
                os.close(lock)
