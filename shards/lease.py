"""One build at a time at one URL. Stores have no locks that end with their holder, so this is a lease: an object, renewed.

Promised: a second build is refused while a first one renews its lease; one whose lease was taken over, because it could not renew
it for three beats (paused, cut off from the store), ends with one line at its next beat. For that long both may write, the same
bytes: other inputs or options are refused by the plan, and the manifest is written only if every object is what its record says.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from preprocess import typed
from preprocess.errors import ShardwaveError
from shards.layout import LOCK
from shards.progress import say
from shards.records import LeaseRecord
from shards.url_path import UrlPath

BEAT = 15.0  # seconds between renewals


@contextlib.contextmanager
def hold(folder: UrlPath) -> Iterator[None]:
    """Hold the folder's lease; raises ShardwaveError where another build does, or when it was lost meanwhile."""
    lease = _Lease(folder)
    lease.take()
    ended = threading.Event()
    beating = threading.Thread(target=lease.beat, args=(ended,), daemon=True)
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost:
            raise ShardwaveError(lease.lost) from None
        raise
    finally:
        ended.set()
        beating.join()
        if not lease.lost:
            lease.object.unlink(missing_ok=True)
    if lease.lost:
        raise ShardwaveError(lease.lost)


class _Lease:
    def __init__(self, folder: UrlPath):
        self.folder = folder
        self.object = folder / LOCK
        self.lost: str | None = None
        self._mine: dict[str, Any] = {"build": uuid.uuid4().hex, "host": socket.gethostname(), "process": os.getpid(), "beat": 0}

    def take(self) -> None:
        """Create the object; where there is one, replace it if its holder is dead or has stopped renewing it."""
        try:
            self._write(new=True)
        except FileExistsError:
            found = self._read()
            if found is None or found["build"] == self._mine["build"] or _dead(found) or self._silent(found):
                self._write()
        now = self._read() or {}
        if now.get("build") != self._mine["build"]:
            raise self._held_by(now)

    def beat(self, ended: threading.Event) -> None:
        """Renew until `ended`; where another build has taken over, interrupt the main thread."""
        while not ended.wait(BEAT):
            try:
                now = self._read() or {}
                if now.get("build") != self._mine["build"]:
                    raise self._held_by(now)
                self._mine["beat"] += 1
                self._write()
            except ShardwaveError as error:
                self.lost = f"this build has lost {self.folder}: {error}"
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def _silent(self, found: dict[str, Any]) -> bool:
        """Watch the object for three beats: whether it stays as it is. Clocks of several machines do not enter."""
        say(f"waiting to see whether the build of process {found['process']} on {found['host']} is still alive")
        for _ in range(12):
            time.sleep(BEAT / 4)
            if self._read() != found:
                return False
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            found = typed.parse(self.object.read_bytes(), self.object.url)
            return dict(typed.check(found, LeaseRecord, self.object.url, "remove it if no build is running"))
        except FileNotFoundError:
            return None

    def _write(self, new: bool = False) -> None:
        self.object.write(json.dumps(self._mine).encode(), new=new)

    def _held_by(self, found: dict[str, Any]) -> ShardwaveError:
        who = f" (process {found['process']} on {found['host']})" if found else ""
        return ShardwaveError(f"another build is writing into {self.folder}{who}: wait until it has ended")


def _dead(found: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    return found["host"] == socket.gethostname() and not os.path.exists(f"/proc/{found['process']}")
