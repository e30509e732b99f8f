"""One build at a time in one folder, or at one URL."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from shardwave.common.errors import ShardwaveError
from shardwave.shards.format.layout import LOCK
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath
from shardwave.shards.storage.locks import try_lock


@contextlib.contextmanager
def hold(folder: AnyPath, *, break_lock: bool = False) -> Iterator[None]:
    """Hold the lock of a folder that is built into.

    On this machine it is a file's lock, which ends with its process. At a URL it is an object, which is left where a build is
    killed: `break_lock` removes it first.

    Raises:
        ShardwaveError: Another build holds it.
    """
    path, mine = folder / LOCK, f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex}"
    if isinstance(path, Path):
        lock = try_lock(path)
        if lock is None:
            raise _refused(folder, path.read_text())
        try:
            path.write_text(mine)
            yield
        finally:
            lock.release()
        return
    if break_lock:
        any_path.remove(folder, [LOCK])
    try:
        any_path.write(path, mine.encode(), new=True)
    except OSError as error:  # it is there, perhaps by a request of ours whose answer was lost; or the store cannot tell
        if error.errno == errno.ENOSYS and not any_path.exists(path):
            any_path.write(path, mine.encode())
    holder = any_path.read_bytes(path).decode(errors="replace")
    if holder != mine:
        raise _refused(folder, holder, "; if it was killed, give --break-lock")
    try:
        yield
    finally:
        any_path.remove(folder, [LOCK])


def _refused(folder: AnyPath, holder: str, remedy: str = "") -> ShardwaveError:
    who = " ".join(holder.split(",")[0].split())[:100]
    return ShardwaveError(f"another build is writing into {folder} ({who}): wait until it has ended{remedy}")
