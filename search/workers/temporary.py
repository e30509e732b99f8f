"""The temporary folder of a search: the fork server's socket, and Ray's session."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from shardwave.shards.storage import scratch

PREFIX = "swsearch-"
LONGEST = 23  # characters of the folder around it: a socket's path has at most 107, of which Ray's takes 66
GUARD = "import sys; sys.stdin.read(); from shardwave.search.workers.temporary import clear; clear(sys.argv[1])"


def folder() -> contextlib.AbstractContextManager[Path]:
    """A folder for this user alone, removed at the end or, if this process is killed, by the next call of one."""
    parent = Path(tempfile.gettempdir())
    return scratch.folder(parent if len(os.fsencode(parent)) <= LONGEST else Path("/tmp"), PREFIX, clear)


@contextlib.contextmanager
def guarded() -> Iterator[Path]:
    """A folder as `folder` makes it; if this process is killed, another one calls `clear` at once."""
    root = Path(__file__).parents[3]  # which holds the package
    with folder() as made:
        command = [sys.executable, "-c", GUARD, str(made)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=root, start_new_session=True) as guard:
            try:
                yield made
            finally:
                guard.kill()


def clear(folder: Path | str) -> None:
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


def _ray_processes(folder: Path | str) -> set[int]:
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
