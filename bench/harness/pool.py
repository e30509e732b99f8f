"""Worker processes that stay warm between repeats, in the environment of a build's processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from shardwave.shards.build.executors import ProcessPool

PATIENCE = 300  # seconds that workers wait for each other

Setup = Callable[..., Callable[[Any], Any]]
_barrier: Any = None  # in a worker: all the workers of its pool


class Pool:
    """`workers` processes for several jobs. `setup(*arguments)` returns a job; it is called once in every worker."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor = ProcessPool(workers, _start, multiprocessing.get_context("spawn").Barrier(workers))

    def map(self, tasks: Sequence[Any], setup: Setup, *arguments: Hashable) -> Iterator[Any]:
        """The job's results one by one, in the order of the tasks; an idle worker takes the next task."""
        return self._executor.map(_run, [(setup, arguments, task) for task in tasks])

    def each(self, tasks: Sequence[Any], setup: Setup, *arguments: Hashable) -> list[Any]:
        """One task in every worker, all starting together: warm-up, or equal shares of a fixed amount of work."""
        if len(tasks) != self.workers:
            raise ValueError(f"{self.workers} workers need as many tasks, got {len(tasks)}")
        return list(self._executor.map(_run_together, [(setup, arguments, task) for task in tasks]))

    def close(self) -> None:
        """End the workers."""
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
    _barrier.wait(PATIENCE)  # no worker may take two of these
    return _run(call)
