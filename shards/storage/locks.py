"""Locks between the processes of a machine. The system releases them when their process ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from shardwave.common.messages import say


def try_lock(path: Path) -> FileLock | None:
    """Lock a file, which is created if needed; returns None if it is locked. `release` unlocks it."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


@contextlib.contextmanager
def exclusive(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Hold the lock of a file in the context; waits until it is free.

    Args:
        path: The file, which is created if needed.
        waiting: Message to print if the lock is not free.
    """
    lock = try_lock(path)
    if lock is None:
        if waiting:
            say(waiting)
        lock = FileLock(path, thread_local=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
