"""Executors of a build on this machine: in processes, or in threads that share its GPUs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import Connection
from typing import Any

from shardwave.common import log
from shardwave.common.environment import cores
from shardwave.common.errors import ShardwaveError
from shardwave.common.messages import say
from shardwave.shards.build import worker
from shardwave.shards.build.shard_task import ShardTask
from shardwave.shards.build.worker import BuildSpec, Built
from shardwave.shards.format.records import TaskRecord
from shardwave.shards.storage import scratch

# Environment of a building process: one thread per library; glibc keeps the memory of a clip for the next
ENVIRONMENT = {
    **{
        name: "1"
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    },
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
AGAIN = "run the same command again to finish the set, with fewer --workers if memory ran out"
ATTEMPTS = 3  # number of consecutive losses of workers, without a finished task in between, that end a build
INTERVAL = 0.2  # seconds between updates of the progress
GPU_THREADS = 4  # maximum number of tasks that share a GPU: while one writes or waits, others compute
GPU_ROOM = 4 << 30  # bytes of device memory for each of them


class BuildExecutor:
    """Base class of executors, which build the shard tasks of one build in several workers.

    Args:
        count: Number of workers.
    """

    slots: Any = ()  # the `worker.Slot` of each worker that shares memory with this process

    def __init__(self, count: int) -> None:
        self.count = count

    def warm_up(self) -> None:
        """Start the workers and load their libraries."""

    def submit(self, task: ShardTask) -> Future[Built]:
        """Start to build a task. The future raises BrokenProcessPool if a worker was lost (see `replace`)."""
        raise NotImplementedError

    def replace(self) -> str:
        """Restart all workers after one was lost; returns a message that names the lost worker."""
        raise NotImplementedError

    def result(self, future: Future[Built]) -> Built:
        """Return the result of a finished future.

        Raises:
            BrokenProcessPool: A worker was lost.
            ShardwaveError: The task could not be built.
        """
        return future.result()

    def check(self) -> None:
        """Check that the workers can make progress. `run` calls this several times per second."""

    def close(self) -> None:
        """Stop the workers immediately."""

    def run(
        self, tasks: Sequence[ShardTask], progress: Callable[[int, float, int, int], None]
    ) -> list[TaskRecord]:
        """Build tasks, and keep those that were finished before.

        Args:
            tasks: The tasks; each is read when a worker is free.
            progress: Called several times per second with the number of clips done, their length in seconds,
                the number of quarantined clips, and the number of clips in tasks that were finished before.

        Returns:
            The records of the tasks, in any order.

        Raises:
            ShardwaveError: A task could not be built, or workers were lost ATTEMPTS times without a finished
                task in between.
        """
        records: list[TaskRecord] = []
        done, kept, lost = worker.Slot(), 0, 0
        waiting = iter(tasks)
        running: dict[Future[Built], ShardTask] = {}
        while len(records) < len(tasks):
            running |= {self.submit(task): task for task in islice(waiting, self.count - len(running))}
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
                say(f"{message}; built again: {', '.join(sorted(task.name for task in running.values()))}")
                waiting, running = chain(running.values(), waiting), {}
            self.check()
            slots = (done, *self.slots)
            clips, bad = sum(slot.clips for slot in slots), sum(slot.bad for slot in slots)
            progress(clips, sum(slot.seconds for slot in slots), bad, kept)
        return records


class LocalExecutor(BuildExecutor):
    """Builds shard tasks in processes or threads of this machine.

    Args:
        spec: Specification of the build.
        count: Number of workers.
        threads: Use threads of this process, each with its own engine, instead of processes.
    """

    def __init__(self, spec: BuildSpec, count: int, *, threads: bool = False) -> None:
        super().__init__(count)
        self._spec, self._threads = spec, threads
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.slots = context.RawArray(worker.Slot, self.count)
        self._processes: dict[int | None, Any] = {}
        arguments = (self._spec, self.slots, context.Value("i"))
        self._pool: Executor = (
            ThreadPoolExecutor(self.count, "build", worker.start, arguments)
            if self._threads
            else ProcessPool(self.count, worker.start, *arguments)
        )

    def warm_up(self) -> None:
        """Start the processes and load their libraries; threads of this process need no preparation."""
        for _ in range(0 if self._threads else min(self.count, cores())):
            self._pool.submit(worker.warm_up)

    def submit(self, task: ShardTask) -> Future[Built]:
        """Start to build a task, see `BuildExecutor.submit`."""
        try:
            future = self._pool.submit(worker.build, task)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self._processes.update({process.pid: process for process in multiprocessing.active_children()})
        return future

    def replace(self) -> str:
        """Restart all workers after one was lost, see `BuildExecutor.replace`."""
        processes, slots = self._processes, self.slots
        self.close()
        self._open()
        for slot in slots:
            code = getattr(processes.get(slot.pid), "exitcode", 0) or 0
            if code not in (
                0,
                1,
                -signal.SIGTERM,
            ):  # statuses of the workers that were stopped as a consequence
                event = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                return f"a building process {event}{worker.last_read(slot)}"
        return "a building process ended"

    def close(self) -> None:
        """Stop the workers immediately."""
        for slot in self.slots:
            slot.stop = True
        if isinstance(self._pool, ProcessPool):
            self._pool.end()
        self._pool.shutdown(cancel_futures=True)
        if self._spec.remote:
            scratch.remove_stale()


class ProcessPool(ProcessPoolExecutor):
    """A process pool for numerical work.

    Its processes use one thread per library, do not import the main program's file, and end when the main
    process ends.

    Args:
        count: Number of processes.
        start: Function that each process calls first, with `arguments`.
        *arguments: Arguments of `start`; may include shared memory and locks of `multiprocessing`.
    """

    def __init__(self, count: int, start: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")  # forking a process that has threads is not safe
        ended, self._alive = context.Pipe(duplex=False)
        super().__init__(count, context, _start, (ended, start, arguments))

    def submit(self, *call: Any, **named: Any) -> Future[Any]:
        """Schedule a call, as `concurrent.futures.Executor.submit`."""
        with child_environment():  # submit may start a process
            return super().submit(*call, **named)

    def end(self) -> None:
        """Stop the processes immediately."""
        self._alive.close()


def _start(alive: Connection, start: Callable[..., None], arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    log.set_up()
    start(*arguments)


def _end_with(alive: Connection) -> None:
    """Exit when the main process has ended or calls `end`. Incomplete files have temporary names only."""
    alive.poll(None)
    os._exit(1)


@contextlib.contextmanager
def child_environment() -> Iterator[None]:
    """Let processes started in the context use `ENVIRONMENT`, and not import the main program's file."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    main = sys.modules["__main__"]
    os.environ.update(ENVIRONMENT)
    sys.modules["__main__"] = types.ModuleType("__main__")  # otherwise spawned processes run its file again
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
    """Return the number of tasks that this machine's GPUs build at the same time, as many on each of them.

    The GPU with the least free memory decides how many that are.
    """
    import torch

    count = torch.cuda.device_count()
    room = min(torch.cuda.mem_get_info(i)[0] for i in range(count)) // GPU_ROOM
    return count * max(1, min(GPU_THREADS, room))
