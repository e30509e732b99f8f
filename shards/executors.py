"""Who builds the units of a job: processes of this machine, or threads that share its GPU (see `ray_workers` for a cluster)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any, Protocol

from preprocess import log
from preprocess.environment import cores
from preprocess.errors import ShardwaveError
from shards import scratch, task
from shards.progress import say
from shards.task import Job
from shards.unit import Unit

ENVIRONMENT = {  # of a building process: one thread for every library; glibc keeps a clip's megabytes for the next clip
    **{name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")},
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
AGAIN = "run the same command again to finish the set, with fewer --workers if memory ran out"
ATTEMPTS = 3  # workers that are lost without a finished unit between them, after which a build ends
INTERVAL = 0.2  # seconds between updates of the progress
GPU_THREADS = 4  # units that share a GPU: while one waits for its last batch or hashes what it writes, others compute
GPU_ROOM = 4 << 30  # bytes of device memory for each of them

Built = tuple[dict[str, Any], bool]  # a unit's record, and whether it was finished before


class Workers(Protocol):
    """Workers of one job."""

    count: int
    slots: Any  # a `task.Slot` of each, where they share memory with this process

    def warm_up(self) -> None:
        """Start them and load their libraries, before the units are known."""

    def submit(self, unit: Unit) -> Future[Built]:
        """Build `unit`."""

    def result(self, future: Future[Built]) -> Built:
        """The result of a finished future; raises `BrokenProcessPool` where `replace` is to be called."""

    def replace(self) -> str:
        """Start all of them anew after one was lost; a message that says which."""

    def check(self) -> None:
        """Look after them; called several times a second."""

    def close(self) -> None:
        """End them at once."""


def run(workers: Workers, units: Sequence[Unit], progress: Callable[[int, float, int, int], None]) -> list[dict[str, Any]]:
    """Build `units`, or keep what was finished before.

    Args:
        workers: Build them.
        units: As many as there are workers are asked for at a time.
        progress: Called several times a second with the clips done, their seconds, how many of them were quarantined, and the
            clips of units that were finished before.

    Returns:
        The units' records, in any order.

    Raises:
        ShardwaveError: A unit could not be built, or workers are lost again and again.
    """
    records: list[dict[str, Any]] = []
    clips, seconds, bad, kept, lost = 0, 0.0, 0, 0, 0
    waiting = iter(units)
    running: dict[Future[Built], Unit] = {}
    while len(records) < len(units):
        while len(running) < workers.count and (unit := next(waiting, None)) is not None:
            running[workers.submit(unit)] = unit
        finished, _ = wait(running, INTERVAL, FIRST_COMPLETED)
        broken = False
        for future in finished:
            try:
                record, old = workers.result(future)
            except BrokenProcessPool:
                broken = True
                continue
            unit = running.pop(future)
            records.append(record)
            if old:
                kept += len(unit.clips)
            else:
                clips, seconds, bad = clips + len(unit.clips), seconds + record["audio_seconds"], bad + len(record["quarantined"])
                lost = 0
        if broken:
            lost += 1
            message = workers.replace()
            if lost == ATTEMPTS:
                raise ShardwaveError(f"{message}: {AGAIN}")
            say(f"{message}; built again: {', '.join(sorted(unit.name for unit in running.values()))}")
            waiting = chain(running.values(), waiting)
            running = {}
        workers.check()
        progress(
            clips + sum(slot.clips for slot in workers.slots),
            seconds + sum(slot.seconds for slot in workers.slots),
            bad + sum(slot.bad for slot in workers.slots),
            kept,
        )
    return records


class LocalWorkers:
    """Processes of this machine, or threads of this process (each with an engine of its own) that share its GPU."""

    def __init__(self, job: Job, count: int, *, threads: bool = False):
        self.count = count
        self._job, self._threads = job, threads
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")  # forking a process that holds threads is not safe
        self.slots = context.RawArray(task.Slot, self.count)
        self._processes: dict[int | None, Any] = {}
        arguments = (self._job, self.slots, context.Value("i"))
        ended, self._alive = context.Pipe(duplex=False)
        self._executor: Executor = (
            ThreadPoolExecutor(self.count, "build", task.start, arguments)
            if self._threads
            else ProcessPoolExecutor(self.count, context, _start_process, (ended, *arguments))
        )

    def warm_up(self) -> None:
        """See `Workers`."""
        for _ in range(0 if self._threads else min(self.count, cores())):
            self._submit(task.warm_up)

    def submit(self, unit: Unit) -> Future[Built]:
        """See `Workers`."""
        return self._submit(task.build, unit)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        with child_environment(ENVIRONMENT), _no_main_program():  # this may start a process
            future = self._executor.submit(function, *arguments)
        self._processes.update({process.pid: process for process in multiprocessing.active_children()})
        return future

    def result(self, future: Future[Built]) -> Built:
        """See `Workers`."""
        return future.result()

    def replace(self) -> str:
        """See `Workers`."""
        processes, slots = self._processes, self.slots
        self.close()
        self._open()
        for slot in slots:
            code = getattr(processes.get(slot.pid), "exitcode", 0) or 0
            if code not in (0, 1, -signal.SIGTERM):  # those of workers that were ended because of it
                how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                return f"a building process {how}{task.last_read(slot)}"
        return "a building process ended"

    def check(self) -> None:
        """See `Workers`."""

    def close(self) -> None:
        """See `Workers`."""
        self._alive.close()  # processes end at once
        for slot in self.slots:
            slot.stop = True
        self._executor.shutdown(cancel_futures=True)
        if self._job.remote:
            scratch.remove_stale()


def _start_process(alive: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    log.set_up()
    task.start(*arguments)


def _end_with(alive: Connection) -> None:
    """End at once when the main process has ended or wants it: what is half-written bears temporary names only."""
    alive.poll(None)
    os._exit(1)


@contextlib.contextmanager
def child_environment(values: Mapping[str, str]) -> Iterator[None]:
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


def gpu_threads() -> int:
    """Units that this machine's GPU has room for."""
    import torch

    return max(1, min(GPU_THREADS, torch.cuda.mem_get_info()[0] // GPU_ROOM))
