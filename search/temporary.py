"""The temporary folder of a search: sockets, and Ray's session. What killed searches left is removed when the next one starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

PREFIX = "swsearch-"
NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")  # as mkdtemp completes it
LONGEST = 23  # characters of the folder around it: a socket's path has at most 107, of which Ray's takes 66


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
                    clear(base / name)
            finally:
                os.close(lock)


def clear(folder: Path) -> None:
    """Remove the folder of a search whose main process was killed, and end what is left of its Ray.

    Two of Ray's agents would otherwise live on for more than a minute, and write into the folder.
    """
    until = time.monotonic() + 5
    while (processes := _ray_processes(folder)) and time.monotonic() < until:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _ray_processes(folder: Path) -> set[int]:
    """Ray's processes that have a file open in `folder`: their command lines name it, or are an actor's title."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if not any(os.readlink(link).startswith(f"{folder}/") for link in (process / "fd").iterdir()):
                continue
            command = (process / "cmdline").read_bytes()
            if command.startswith(b"ray::") or os.fsencode(folder) in command:
                found.add(int(process.name))
    return found
