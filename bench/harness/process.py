"""Run a command and measure its duration, the time of its first result and the memory of its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shardwave.bench.harness.record import Params, Record
from shardwave.common.errors import ShardwaveError

ROOT = Path(__file__).resolve().parents[2]
CLI = (sys.executable, "-c", "from cli import main; main()")  # the command line in a fresh process
RESULT_SECONDS, MEMORY_SECONDS = 0.02, 0.2  # intervals between checks for the first result, and of the memory


class Watched(NamedTuple):
    """Measurements of a command that succeeded."""

    started: float  # Unix time
    first: float  # seconds until `appeared` was first true, or until the end
    seconds: float
    peak_mb: float  # largest resident set of a process, sampled every MEMORY_SECONDS; NaN without /proc


def watch(command: Sequence[str], appeared: Callable[[], bool] = lambda: False) -> Watched:
    """Run `command` to its end.

    Args:
        command: Program and arguments.
        appeared: Whether the first result exists.

    Raises:
        ShardwaveError: The command fails; the message holds the last line of its standard error.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "SHARDWAVE_QUIET": "1", "PYTHONPATH": paths}
    started, start = time.time(), time.perf_counter()
    first, peak, measured = None, 0.0, start
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, text=True, env=environment
        ) as process,
    ):
        try:
            while _runs(process):
                now = time.perf_counter()
                if first is None and appeared():
                    first = now - start
                if now - measured >= MEMORY_SECONDS:
                    peak, measured = max(peak, *map(_peak_mb, _family(process.pid))), now
            seconds = time.perf_counter() - start
        finally:
            if process.poll() is None:
                process.terminate()
        errors.seek(0)
        message = (errors.read().strip().splitlines() or ["no message"])[-1]
    if process.returncode:
        raise ShardwaveError(f"{' '.join(command[-6:])}: exit status {process.returncode}: {message}")
    return Watched(started, seconds if first is None else first, seconds, peak or float("nan"))


def memory(stage: str, case: str, watched: Sequence[Watched], params: Params) -> Record:
    """Return a record of the memory of the largest process of each command.

    Args:
        stage: Stage of the record.
        case: Name of the case.
        watched: Measurements of the commands.
        params: Parameters of the case.
    """
    peaks = [one.peak_mb for one in watched if one.peak_mb == one.peak_mb]
    reason = None if peaks else "this system has no /proc to read memory from"
    return Record(stage, case, "ours", "MB", peaks, params, skipped=reason)


def _runs(process: subprocess.Popen[str]) -> bool:
    """Return whether the process still runs after RESULT_SECONDS."""
    try:
        process.wait(RESULT_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _peak_mb(pid: int) -> float:
    """Return the peak resident set of a process in MB (VmHWM); 0 if it has ended or there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max(
        (int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), default=0.0
    )


def _family(pid: int) -> Iterator[int]:
    """Yield the process ids of a process and of its descendants."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from _family(int(child))
