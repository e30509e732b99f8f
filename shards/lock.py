"""One build at a time in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from preprocess.errors import ShardwaveError
from shards import lease
from shards.layout import LOCK
from shards.url_path import Place, UrlPath


@contextlib.contextmanager
def hold(folder: Place) -> Iterator[None]:
    """Hold the folder's lock file; raises ShardwaveError where another process holds it. A killed holder's lock is free."""
    if isinstance(folder, UrlPath):
        with lease.hold(folder):
            yield
        return
    with open(folder / LOCK, "a+") as file:  # closed on exec: worker processes do not inherit it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip()
            raise ShardwaveError(
                f"another build is writing into {folder}{f' (process {holder})' if holder else ''}: wait until it has ended"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
