"""Worker processes that stay warm between repeats: one per core, in the environment of a build's processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from shards.executors import ENVIRONMENT, child_environment

PATIENCE = 300  # seconds that workers wait for each other

_jobs: dict[str, Callable[[Any], Any]] = {}  # in a worker: what it has been prepared for
_barrier: Any = None  # in a worker: all the workers of its pool


class Pool:
    """`workers` processes, each of which can be prepared for several jobs."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.workers = workers
        self._executor = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(context.Barrier(workers),))
        self._prepared = 0

    def prepare(self, setup: Callable[..., Callable[[Any], Any]], *arguments: Any) -> str:
        """Call `setup(*arguments)` in every worker; the name of the job that it returned there."""
        self._prepared += 1
        job = f"{setup.__name__}-{self._prepared}"
        with child_environment(ENVIRONMENT):  # the workers are started by the first call
            list(self._executor.map(_prepare, [(job, setup, arguments)] * self.workers))
        return job

    def map(self, job: str, tasks: Sequence[Any]) -> list[Any]:
        """The job's results for all tasks; an idle worker takes the next one."""
        return list(self.stream(job, tasks))

    def stream(self, job: str, tasks: Sequence[Any]) -> Iterator[Any]:
        """The same one by one, in the order of the tasks."""
        return self._executor.map(_run, [(job, task) for task in tasks])

    def each(self, job: str, tasks: Sequence[Any]) -> list[Any]:
        """One task in every worker, all starting together: warm-up, or equal shares of a fixed amount of work."""
        if len(tasks) != self.workers:
            raise ValueError(f"{self.workers} workers need as many tasks, got {len(tasks)}")
        return list(self._executor.map(_together, [(job, task) for task in tasks]))

    def close(self) -> None:
        """End the workers."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _start(barrier: Any) -> None:
    global _barrier
    _barrier = barrier
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool whose owner was killed must not work on for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _prepare(call: tuple[str, Callable[..., Callable[[Any], Any]], tuple]) -> None:
    job, setup, arguments = call
    _barrier.wait(PATIENCE)  # no worker may take two of these
    _jobs[job] = setup(*arguments)


def _run(call: tuple[str, Any]) -> Any:
    job, task = call
    return _jobs[job](task)


def _together(call: tuple[str, Any]) -> Any:
    _barrier.wait(PATIENCE)
    return _run(call)
