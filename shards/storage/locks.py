"""Locks between processes, on files of this machine; they end with their process, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from shardwave.common.messages import say


def try_lock(path: Path) -> FileLock | None:
    """Lock a file, which is made where it is missing; None where it is locked. The lock's `release` ends it."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


@contextlib.contextmanager
def exclusive(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Hold the lock of a file, waiting for it; `waiting` is said first, if it must be waited for."""
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
