"""Lock that allows one build at a time in a folder or at a URL."""

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
    """Hold the lock of the output folder of a build in the context.

    On disk it is a file lock, which the system releases when its process ends. At a URL it is an object,
    which remains if the build is killed.

    Args:
        folder: Output folder or URL.
        break_lock: Remove the object of another build first.

    Raises:
        ShardwaveError: Another build holds the lock.
    """
    path, owner = folder / LOCK, f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex}"
    if isinstance(path, Path):
        lock = try_lock(path)
        if lock is None:
            raise _refused(folder, path.read_text())
        try:
            path.write_text(owner)
            yield
        finally:
            lock.release()
        return
    if break_lock:
        any_path.remove(folder, [LOCK])
    try:
        any_path.write(path, owner.encode(), new=True)
    # The object exists, perhaps by a request of this process whose answer was lost; or the store has no
    # exclusive writes (ENOSYS)
    except OSError as error:
        if error.errno == errno.ENOSYS and not any_path.exists(path):
            any_path.write(path, owner.encode())
    holder = any_path.read_bytes(path).decode(errors="replace")
    if holder != owner:
        raise _refused(folder, holder, "; if it was killed, give --break-lock")
    try:
        yield
    finally:
        any_path.remove(folder, [LOCK])


def _refused(folder: AnyPath, holder: str, remedy: str = "") -> ShardwaveError:
    process = " ".join(holder.split(",")[0].split())[:100]
    return ShardwaveError(
        f"another build is writing into {folder} ({process}): wait until it has ended{remedy}"
    )
