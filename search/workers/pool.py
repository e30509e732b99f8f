"""Worker processes that run trials for a driver: the loop shared by the backends that schedule in the main process."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from shardwave.common.errors import ShardwaveError
from shardwave.search.budget import SearchBudget
from shardwave.search.trial import MAX_ATTEMPTS, Assignment, Trial, final_state
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers import fork_server
from shardwave.search.workers.worker import threads, worker_main


class Driver:
    """Decides which trials run and when they stop."""

    poll: float | None = None  # seconds after which it wants to `tick`, where nothing else happens; None: never

    def ask(self) -> Assignment | None:
        """The next trial, or None when there is none."""
        raise NotImplementedError

    def more(self) -> bool:
        """After `ask` had none: whether it may have one later (others work on the same trials), and must be asked again."""
        return False

    def tick(self) -> None:
        """Time has passed."""

    def report(self, trial: Trial) -> bool:
        """A trial has a new value (its last); True stops it."""
        return False

    def end(self, trial: Trial) -> None:
        """A trial is about to be written down as ended, with its state set."""


class Worker:
    """A worker process as the main process sees it."""

    def __init__(self, process: BaseProcess, link: Connection, slot: int) -> None:
        self.process, self.link, self.slot = process, link, slot  # slot: 0 to jobs - 1
        self.name = ""
        self.ready = False  # has prepared itself
        self.idle = False  # waits for work
        self.work: Assignment | None = None

    def send(self, message: Any) -> None:
        """Send; a worker that is gone is found, with its work, by the next `wait`."""
        with contextlib.suppress(ConnectionError):
            self.link.send(message)

    def end(self) -> int | None:
        """End the process if it lives; returns its exit status."""
        self.process.kill()
        self.process.join()
        self.link.close()
        return self.process.exitcode


class WorkerPool:
    """`budget.jobs` workers, forked from a server that starts importing at once, while the caller goes on.

    The cores are divided among the workers, and so are the GPUs: worker i is shown GPU number i * gpus_per_trial alone.
    A context manager: leaving it ends the workers.
    """

    def __init__(self, objective: Callable[..., None], budget: SearchBudget) -> None:
        self._jobs, self._gpus_per_trial = budget.jobs or 1, budget.gpus_per_trial
        self._objective, self._modules = objective, getattr(objective, "modules", ())
        self._threads = threads(objective, self._jobs)
        self.workers: list[Worker] = []
        fork_server.start(self._modules, self._threads)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.end()

    def run(self, driver: Driver, log: TrialLog, epochs: int) -> None:
        """Run trials until the driver has no more."""
        loop = _Loop(self, driver, log, epochs)
        for slot in range(self._jobs):
            self.add_worker(slot)
        while loop.feed():
            driver.tick()
            ready = wait([worker.link for worker in self.workers], driver.poll)
            for worker in [worker for worker in self.workers if worker.link in ready]:
                try:
                    message = worker.link.recv()
                except (EOFError, ConnectionError):
                    self.workers.remove(worker)
                    loop.lost(worker)
                else:
                    loop.handle(worker, message)

    def add_worker(self, slot: int) -> None:
        """Start one more worker."""
        link, theirs = fork_server.CONTEXT.Pipe()
        gpu = self._gpu(slot) if self._gpus_per_trial else None
        process = fork_server.CONTEXT.Process(
            target=worker_main, args=(theirs, self._objective, self._threads, gpu, fork_server.folder()), name=f"search-{slot}"
        )
        try:
            fork_server.start(self._modules, self._threads, process)
        except (OSError, EOFError) as error:
            raise ShardwaveError(f"the process that starts workers ended while it imported {self._modules}") from error
        theirs.close()
        self.workers.append(Worker(process, link, slot))

    def _gpu(self, slot: int) -> str:
        number = int(slot * self._gpus_per_trial)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",")[number] if visible else str(number)


class _Loop:
    """What happens to trials between the driver, the workers and the log."""

    def __init__(self, pool: WorkerPool, driver: Driver, log: TrialLog, epochs: int) -> None:
        self.pool, self.driver, self.log, self.epochs = pool, driver, log, epochs
        self.again: deque[Assignment] = deque()  # before anything new
        self.exhausted = False  # the driver has no more trials
        self.deaths = 0  # of workers that had not become ready, in a row

    def feed(self) -> bool:
        """Give work to idle workers; False when all is done."""
        for worker in self.pool.workers:
            if worker.idle and (work := self._next_work()) is not None:
                worker.idle, worker.work = False, work
                self.log.start(work, worker.name)
                worker.send(work)
        more = not self.exhausted or bool(self.again)  # if so, some worker has yet to become idle
        return more or any(worker.work for worker in self.pool.workers)

    def _next_work(self) -> Assignment | None:
        if self.again:
            return self.again.popleft()
        if self.exhausted:
            return None
        work = self.driver.ask()
        self.exhausted = work is None and not self.driver.more()
        return work

    def handle(self, worker: Worker, message: tuple[Any, ...]) -> None:
        """Handle one message of a worker (see `worker_main`)."""
        kind, *values = message
        if kind == "ready":
            worker.ready, worker.idle, worker.name, self.deaths = True, True, values[0], 0
        elif kind == "report":
            trial = self.log.report(*values)
            stopped = self.driver.report(trial)
            worker.send(trial.epochs > self.epochs or (stopped and trial.epochs < self.epochs))
        elif kind == "end":
            worker.idle, worker.work = True, None
            self._end(*values)
        else:
            raise ShardwaveError(values[0])

    def lost(self, worker: Worker) -> None:
        """A worker died: its trial runs again, unless that has happened to it too often."""
        worker.process.join(5)
        status = worker.end() or 0
        reason = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        reason += " (out of memory?)" if status == -9 else ""
        if worker.work is not None:
            number, params, attempt = worker.work.trial, worker.work.params, worker.work.attempt
            if attempt < MAX_ATTEMPTS:
                self.again.append(Assignment(number, params, attempt + 1))
            else:
                self._end(number, "FAILED", f"its worker {reason}, in each of {MAX_ATTEMPTS} attempts", {})
        if not worker.ready:
            self.deaths += 1
            if self.deaths >= MAX_ATTEMPTS:
                raise ShardwaveError(f"search workers do not start: the last one {reason}")
        self.pool.add_worker(worker.slot)

    def _end(self, number: int, state: str, error: str | None, info: dict[str, Any]) -> None:
        trial = self.log.running[number]
        trial.state, trial.error = final_state(trial, state, error, self.epochs)
        trial.seconds = round(time.time() - trial.start, 6)
        trial.info.update(info)
        self.driver.end(trial)
        self.log.end(number, trial.state, trial.error)
