"""Temporary folders of a search, for the socket of the fork server and the session of Ray."""

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
LONGEST = 23  # bytes of the parent's path: the path of a socket has at most 107, of which Ray needs 66
GUARD = (
    "import sys; sys.stdin.read(); from shardwave.search.workers.temporary import clear; clear(sys.argv[1])"
)


def folder() -> contextlib.AbstractContextManager[Path]:
    """Create a private temporary folder.

    Returns:
        A context manager that yields the path and removes the folder. If this process is killed, the next
        call by any process removes the folder.
    """
    parent = Path(tempfile.gettempdir())
    return scratch.folder(parent if len(os.fsencode(parent)) <= LONGEST else Path("/tmp"), PREFIX, clear)


@contextlib.contextmanager
def guarded_folder() -> Iterator[Path]:
    """Create a folder as `folder` does; a guard process calls `clear` as soon as this process is killed.

    Yields:
        The path.
    """
    root = Path(__file__).parents[3]  # parent of the package
    with folder() as path:
        command = [sys.executable, "-c", GUARD, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=root, start_new_session=True) as guard:
            try:
                yield path
            finally:
                guard.kill()


def clear(folder: Path | str) -> None:
    """Remove the folder of a killed search, and kill the remaining processes of its Ray.

    Two of Ray's agents would otherwise run for more than a minute and write to the folder.
    """
    deadline = time.monotonic() + 5
    while (processes := _ray_processes(folder)) and time.monotonic() < deadline:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _ray_processes(folder: Path | str) -> set[int]:
    """Return the ids of Ray's processes with open files in `folder`, identified by command line."""
    pids = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended or belongs to another user
            if not any(os.readlink(link).startswith(f"{folder}/") for link in (process / "fd").iterdir()):
                continue
            command = (process / "cmdline").read_bytes()
            if command.startswith(b"ray::") or os.fsencode(folder) in command:
                pids.add(int(process.name))
    return pids
