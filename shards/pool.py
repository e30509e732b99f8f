"""One process per core, each building whole units; a process that dies ends the build with one line."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any, Protocol

from preprocess.errors import ShardwaveError
from shards import scratch
from shards.unit import Unit
from shards.worker import Job, last_read, serve

ENVIRONMENT = {  # of a building process: one thread for every library; glibc keeps a clip's megabytes for the next clip
    **{name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")},
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class Progress(Protocol):
    """Who is told how far a build is."""

    def clips(self, count: int, seconds: float, bad: int) -> None:
        """So many clips are done: seconds of audio, and how many of them were quarantined."""

    def kept(self, clips: int) -> None:
        """So many clips lie in a shard that was finished before."""

    def again(self, clips: int) -> None:
        """So many clips that were done, or kept, are to be done once more."""


def take(message: tuple[Any, ...], progress: Progress, records: list[dict[str, Any]]) -> bool:
    """Do what a building process's message asks for (see `worker.Server`), raise what failed there; whether it wants a unit."""
    kind, *values = message
    if kind == "clips":
        progress.clips(*values)
    elif kind == "kept":
        progress.kept(*values)
    elif kind == "failed":
        raise values[0]
    elif kind == "crashed":
        raise RuntimeError(f"a building process failed: {values[0]}") from RuntimeError(values[1])
    elif kind == "unit":
        records += values
    return kind == "ready"


class Pool:
    """Building processes of one job. They start, load their libraries and warm up before the units are known."""

    def __init__(self, job: Job):
        self._job = job
        self._processes: dict[connection.Connection, Any] = {}
        self._reading: dict[connection.Connection, Any] = {}  # the clip that each read last

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes at once."""
        for process in self._processes.values():
            process.kill()  # what they had to do is done, or of no use any more
        for ours, process in self._processes.items():
            process.join()
            with contextlib.suppress(OSError):
                ours.close()
        self._processes.clear()
        if self._job.remote:
            scratch.sweep()

    def start(self, workers: int) -> None:
        """Start processes until there are `workers`."""
        context = multiprocessing.get_context("spawn")  # forking a process that holds threads is not safe
        with passing_on(ENVIRONMENT), _no_main_program():
            while len(self._processes) < workers:
                ours, theirs = context.Pipe()
                reading = context.RawArray(ctypes.c_char, 4_096)  # longer than a path
                process = context.Process(target=serve, args=(theirs, self._job, reading), daemon=True)
                process.start()
                theirs.close()
                self._processes[ours] = process
                self._reading[ours] = reading

    def run(self, units: Sequence[Unit], workers: int, progress: Progress) -> list[dict[str, Any]]:
        """Build `units`, or keep what was finished before; the records, in any order."""
        self.start(min(workers, len(units)))
        waiting = iter(units)
        records: list[dict[str, Any]] = []
        while len(records) < len(units):
            for ready in connection.wait(list(self._processes)):
                assert isinstance(ready, connection.Connection)
                if take(self._receive(ready), progress, records) and (unit := next(waiting, None)) is not None:
                    self._send(ready, unit)
        return records

    def _receive(self, ready: connection.Connection) -> Any:
        try:
            return ready.recv()
        except (EOFError, ConnectionResetError):
            raise self._gone(ready) from None

    def _send(self, ready: connection.Connection, unit: Unit) -> None:
        try:
            ready.send(unit)
        except BrokenPipeError:
            raise self._gone(ready) from None

    def _gone(self, ready: connection.Connection) -> ShardwaveError:
        process = self._processes[ready]
        process.join()
        code = process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        hint = ", with fewer --workers if memory ran out" if code == -signal.SIGKILL else ""
        path = last_read(os.fsdecode(self._reading[ready].value))
        return ShardwaveError(f"a building process {how}{path}: run the same command again to finish the set{hint}")


@contextlib.contextmanager
def passing_on(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started meanwhile: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_main_program() -> Iterator[None]:
    """Let processes that are started meanwhile not run the main program's file once more: they need nothing of it."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before
