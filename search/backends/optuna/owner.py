"""Owners of the trials of a shared study, and detection of owners that have ended."""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import optuna


class Owner(TypedDict):
    """Search that runs a trial; stored with the trial.

    Attributes:
        host: Name of the machine.
        pid: Its process.
        started: Start of the process, see `_started`.
        search: Random id; a process may run several searches.
    """

    host: str
    pid: int
    started: str | None
    search: str


BEAT_SECONDS = 10  # interval between heartbeats
STALE_SECONDS = 60  # time without a heartbeat after which a search counts as dead

_running: set[str] = set()  # the searches of this process


def register_owner() -> Owner:
    """Register a new search of this process, and return its host, pid, process start and id."""
    search = uuid.uuid4().hex[:8]
    _running.add(search)
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "search": search,
    }


def unregister(process: Owner) -> None:
    """Unregister a search that `register_owner` registered in this process."""
    _running.discard(process["search"])


def is_running(process: Owner) -> bool:
    """Return whether the process of a search is running; True for searches of other machines."""
    if process["host"] != socket.gethostname():
        return True
    if process["pid"] == os.getpid() and process["started"] == _started(os.getpid()):
        return process["search"] in _running
    return process["started"] is not None and _started(process["pid"]) == str(process["started"])


def _started(pid: int) -> str | None:
    """Return the start of a process in clock ticks ("unknown" without /proc), None if it does not exist."""
    if not Path("/proc/self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:  # a process of another user
            pass
        return "unknown"
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Heartbeat:
    """Heartbeats of the searches of a study, stored as user attributes of the study.

    Args:
        study: The study.
        process: The search that writes heartbeats, as returned by `register_owner`.
    """

    def __init__(self, study: optuna.Study, process: Owner) -> None:
        self._study, self._name = study, _name(process)
        self._last = -math.inf
        self._last_beats: dict[str, tuple[Any, float]] = {}  # last heartbeat and time of its first read

    def beat(self) -> None:
        """Write a heartbeat, at most every BEAT_SECONDS."""
        now = time.monotonic()
        if now - self._last >= BEAT_SECONDS:
            self._last = now
            self._study.set_user_attr(self._name, time.time())

    def is_stale(self, process: Owner) -> bool:
        """Return whether a search has written no heartbeat for STALE_SECONDS, by this machine's clock."""
        name, now = _name(process), time.monotonic()
        beat = self._study.user_attrs.get(name)
        if name not in self._last_beats or self._last_beats[name][0] != beat:
            self._last_beats[name] = beat, now
        return now - self._last_beats[name][1] > STALE_SECONDS


def _name(process: Owner) -> str:
    return f"alive {process['host']} {process['pid']} {process['started']} {process['search']}"
