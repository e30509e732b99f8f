"""Who builds the units of a job: processes of this machine, or threads that share its GPU (see `ray_workers` for a cluster)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import Connection
from typing import Any

from shardwave.common import log
from shardwave.common.environment import cores
from shardwave.common.errors import ShardwaveError
from shardwave.common.messages import say
from shardwave.shards.build import task
from shardwave.shards.build.task import Job
from shardwave.shards.build.unit import Unit
from shardwave.shards.storage import scratch

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


class Workers:
    """Workers of one job; subclasses say who they are."""

    slots: Any = ()  # a `task.Slot` of each worker that shares memory with this process

    def __init__(self, count: int):
        self.count = count

    def warm_up(self) -> None:
        """Start the workers and load their libraries, before the units are known."""

    def submit(self, unit: Unit) -> Future[Built]:
        """Build `unit`; the future raises `BrokenProcessPool` where `replace` is to be called."""
        raise NotImplementedError

    def replace(self) -> str:
        """Start all workers anew after one was lost; returns a message that names the one."""
        raise NotImplementedError

    def result(self, future: Future[Built]) -> Built:
        """The result of a finished future."""
        return future.result()

    def check(self) -> None:
        """Look after the workers; called several times a second."""

    def close(self) -> None:
        """End the workers at once."""

    def run(self, units: Sequence[Unit], progress: Callable[[int, float, int, int], None]) -> list[dict[str, Any]]:
        """Build `units`, or keep what was finished before.

        Args:
            units: Each is asked for when a worker is free for it.
            progress: Called several times a second with the clips done, their seconds, how many of them were quarantined, and
                the clips of units that were finished before.

        Returns:
            The units' records, in any order.

        Raises:
            ShardwaveError: A unit could not be built, or workers were lost ATTEMPTS times without a finished unit between.
        """
        records: list[dict[str, Any]] = []
        done, kept, lost = task.Slot(), 0, 0
        waiting = iter(units)
        running: dict[Future[Built], Unit] = {}
        while len(records) < len(units):
            running |= {self.submit(unit): unit for unit in islice(waiting, self.count - len(running))}
            broken = False
            for future in wait(running, INTERVAL, FIRST_COMPLETED).done:
                try:
                    record, old = self.result(future)
                except BrokenProcessPool:
                    broken = True
                    continue
                clips = len(running.pop(future).clips)
                records.append(record)
                if old:
                    kept += clips
                else:
                    done.clips += clips
                    done.seconds += record["audio_seconds"]
                    done.bad += len(record["quarantined"])
                    lost = 0
            if broken:
                lost += 1
                message = self.replace()
                if lost == ATTEMPTS:
                    raise ShardwaveError(f"{message}: {AGAIN}")
                say(f"{message}; built again: {', '.join(sorted(unit.name for unit in running.values()))}")
                waiting, running = chain(running.values(), waiting), {}
            self.check()
            slots = (done, *self.slots)
            clips, bad = sum(slot.clips for slot in slots), sum(slot.bad for slot in slots)
            progress(clips, sum(slot.seconds for slot in slots), bad, kept)
        return records


class LocalWorkers(Workers):
    """Processes of this machine, or threads of this process (each with an engine of its own) that share its GPU."""

    def __init__(self, job: Job, count: int, *, threads: bool = False):
        super().__init__(count)
        self._job, self._threads = job, threads
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.slots = context.RawArray(task.Slot, self.count)
        self._processes: dict[int | None, Any] = {}
        arguments = (self._job, self.slots, context.Value("i"))
        self._executor: Executor = (
            ThreadPoolExecutor(self.count, "build", task.start, arguments)
            if self._threads
            else ProcessPool(self.count, task.start, *arguments)
        )

    def warm_up(self) -> None:
        """See `Workers`."""
        for _ in range(0 if self._threads else min(self.count, cores())):
            self._executor.submit(task.warm_up)

    def submit(self, unit: Unit) -> Future[Built]:
        """See `Workers`."""
        try:
            future = self._executor.submit(task.build, unit)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self._processes.update({process.pid: process for process in multiprocessing.active_children()})
        return future

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

    def close(self) -> None:
        """See `Workers`."""
        for slot in self.slots:
            slot.stop = True
        if isinstance(self._executor, ProcessPool):
            self._executor.end()
        self._executor.shutdown(cancel_futures=True)
        if self._job.remote:
            scratch.remove_stale()


class ProcessPool(ProcessPoolExecutor):
    """An executor whose processes use one thread in every library, run nothing of the main program and end with it.

    Args:
        count: Processes.
        start: Called in each process with `arguments`.
        arguments: May hold what `multiprocessing` shares with a process that it starts.
    """

    def __init__(self, count: int, start: Callable[..., None], *arguments: Any):
        context = multiprocessing.get_context("spawn")  # forking a process that holds threads is not safe
        ended, self._alive = context.Pipe(duplex=False)
        super().__init__(count, context, _start, (ended, start, arguments))

    def submit(self, *call: Any, **named: Any) -> Future[Any]:
        """See `concurrent.futures.Executor`."""
        with child_environment():  # this may start a process
            return super().submit(*call, **named)

    def end(self) -> None:
        """End the processes at once."""
        self._alive.close()


def _start(alive: Connection, start: Callable[..., None], arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    log.set_up()
    start(*arguments)


def _end_with(alive: Connection) -> None:
    """End at once when the main process has ended or wants it: what is half-written bears temporary names only."""
    alive.poll(None)
    os._exit(1)


@contextlib.contextmanager
def child_environment() -> Iterator[None]:
    """Start processes with `ENVIRONMENT`, which libraries read when they are loaded, and without the main program's file."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    main = sys.modules["__main__"]
    os.environ.update(ENVIRONMENT)
    sys.modules["__main__"] = types.ModuleType("__main__")  # spawned processes would run its file once more
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def gpu_threads() -> int:
    """Units that this machine's GPU has room for."""
    import torch

    return max(1, min(GPU_THREADS, torch.cuda.mem_get_info()[0] // GPU_ROOM))
