"""A command watched from outside: when its first result appears, how long it takes, how much memory its processes need."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from preprocess.errors import ShardwaveError

ROOT = Path(__file__).resolve().parent.parent
CLI = (sys.executable, "-c", "from cli import main; main()")  # the command line as a user runs it, in a fresh process

FIRST, MEMORY = 0.02, 0.2  # seconds between two looks: whether there is a result; at the peaks of memory, which only grow


@dataclasses.dataclass(frozen=True)
class Watched:
    """What was seen of a command that ended well."""

    began: float  # Unix time
    first: float  # seconds until `appeared` was first true; the whole time where it never was
    seconds: float
    peak_mb: float  # largest resident set of any one of its processes, but for what grew in its last MEMORY; NaN without /proc


def watch(command: Sequence[str], appeared: Callable[[], bool] = lambda: False) -> Watched:
    """Run `command` to its end; ShardwaveError with the last line it wrote where it fails."""
    environment = {
        **os.environ,
        "SHARDWAVE_QUIET": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    began, start = time.time(), time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True, env=environment) as process,
    ):
        look = _Look(process.pid, start, appeared)
        look.start()
        try:
            process.wait()
            seconds = time.perf_counter() - start
        finally:
            look.stop()
            if process.poll() is None:
                process.terminate()
        said.seek(0)
        lines = said.read().strip().splitlines()
    if process.returncode:
        raise ShardwaveError(
            f"{' '.join(command[-6:])}: exit status {process.returncode}: {lines[-1] if lines else 'no message'}"
        )
    return Watched(began, look.first if look.first is not None else seconds, seconds, look.peak_mb or float("nan"))


class _Look(threading.Thread):
    """Looks at a command while it runs, seldom: what looking costs, the command lacks where it uses all cores."""

    def __init__(self, pid: int, start: float, appeared: Callable[[], bool]):
        super().__init__(daemon=True)
        self.first: float | None = None
        self.peak_mb = 0.0
        self._pid, self._start, self._appeared = pid, start, appeared
        self._ended = threading.Event()

    def run(self) -> None:
        measured = self._start
        while not self._ended.wait(FIRST if self.first is None else MEMORY):
            if self.first is None and self._appeared():
                self.first = time.perf_counter() - self._start
            if time.perf_counter() - measured >= MEMORY:
                self.peak_mb = max(self.peak_mb, _peak_mb(self._pid))
                measured = time.perf_counter()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()


def _peak_mb(pid: int) -> float:
    """The largest VmHWM of `pid` and its descendants, in MB; 0 where the system has no /proc."""
    peak = 0.0
    for member in _family(pid):
        try:
            status = Path(f"/proc/{member}/status").read_text()
        except OSError:  # it has just ended
            continue
        peak = max([peak, *(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM:"))])
    return peak


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        try:
            for thread in Path(f"/proc/{member}/task").iterdir():
                members += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return members
