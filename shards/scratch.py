"""A temporary folder of this process; what killed processes left there is removed by the next that makes or sweeps one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from preprocess.errors import ShardwaveError

_held: list[tuple[Path, int]] = []  # folders, and what keeps them locked as long as this process lives


def make() -> Path:
    """A new folder in this machine's temporary folder (TMPDIR); it is in use until this process ends."""
    with _base() as base:
        _sweep(base)
        folder = Path(tempfile.mkdtemp(dir=base))
        _held.append((folder, os.open(folder, os.O_RDONLY)))
        fcntl.flock(_held[-1][1], fcntl.LOCK_EX)
    return folder


def sweep() -> None:
    """Remove this process's folders, and those whose processes have ended."""
    while _held:
        folder, lock = _held.pop()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    with _base() as base:
        _sweep(base)
        if not any(base.iterdir()):
            base.rmdir()


@contextlib.contextmanager
def _base() -> Iterator[Path]:
    """The folder that holds them all, locked: none is being made, or removed, meanwhile."""
    base = Path(tempfile.gettempdir()) / f"shardwave-{os.getuid()}"
    while True:
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            raise ShardwaveError(f"{base} belongs to somebody else: name another temporary folder by TMPDIR")
        folder = os.open(base, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(folder), os.stat(base)):  # not removed while we waited
                    yield base
                    return
        finally:
            os.close(folder)


def _sweep(base: Path) -> None:
    for left in base.iterdir():
        folder = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(folder)
