"""Worker processes that are reused between repeats, with the environment of a build's processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from shardwave.shards.build.executors import ProcessPool

BARRIER_SECONDS = 300  # longest wait of the workers for each other

Setup = Callable[..., Callable[[Any], Any]]
_barrier: Any = None  # in a worker: the barrier of all workers of its pool


class Pool:
    """Processes that run several jobs.

    `setup(*arguments)` returns a job, a function of one task. It is called once in every worker; workers keep
    their jobs.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor = ProcessPool(workers, _start, multiprocessing.get_context("spawn").Barrier(workers))

    def map(self, tasks: Sequence[Any], setup: Setup, *arguments: Hashable) -> Iterator[Any]:
        """Yield the results of the job for `tasks` in their order; an idle worker takes the next task."""
        return self._executor.map(_run, [(setup, arguments, task) for task in tasks])

    def each(self, tasks: Sequence[Any], setup: Setup, *arguments: Hashable) -> list[Any]:
        """Run one task in every worker, all starting together, and return the results.

        Raises:
            ValueError: There is not one task per worker.
        """
        if len(tasks) != self.workers:
            raise ValueError(f"{self.workers} workers need as many tasks, got {len(tasks)}")
        return list(self._executor.map(_run_together, [(setup, arguments, task) for task in tasks]))

    def close(self) -> None:
        """Stop the workers."""
        self._executor.end()
        self._executor.shutdown(cancel_futures=True)


def _start(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


@functools.cache
def _job(setup: Setup, arguments: tuple[Hashable, ...]) -> Callable[[Any], Any]:
    return setup(*arguments)


def _run(call: tuple[Setup, tuple[Hashable, ...], Any]) -> Any:
    setup, arguments, task = call
    return _job(setup, arguments)(task)


def _run_together(call: tuple[Setup, tuple[Hashable, ...], Any]) -> Any:
    _job(*call[:2])
    _barrier.wait(BARRIER_SECONDS)  # every worker takes one task
    return _run(call)
