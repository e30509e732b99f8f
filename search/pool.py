"""Worker processes that run trials for a driver: the loop shared by the backends that schedule in the main process."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from preprocess.errors import ShardwaveError
from search.budget import SearchBudget
from search.interrupt import Interrupts
from search.results import TrialLog
from search.template import Template, connect, threads
from search.trial import MAX_ATTEMPTS, Assignment, Trial


class Driver(Protocol):
    """Decides which trials run and when they stop."""

    poll: float | None  # seconds after which it wants to `tick`, where nothing else happens; None: never

    def ask(self) -> Assignment | None:
        """The next trial, or None when there is none."""

    def more(self) -> bool:
        """After `ask` had none: whether it may have one later (others work on the same trials), and must be asked again."""

    def tick(self) -> None:
        """Time has passed."""

    def report(self, trial: Trial) -> bool:
        """A trial has a new value (its last); True stops it."""

    def end(self, trial: Trial) -> None:
        """A trial is about to be written down as ended, with its state set."""


class Worker:
    """A worker process as the main process sees it."""

    def __init__(self, link: Connection, slot: int) -> None:
        self.link, self.slot = link, slot  # slot: 0 to jobs - 1
        self.pid: int | None = None
        self.name = ""
        self.ready = False  # has prepared itself
        self.idle = False  # waits for work
        self.work: Assignment | None = None


class WorkerPool:
    """`budget.jobs` workers, forked from one template process that starts importing at once, while the caller goes on.

    The cores are divided among the workers, and so are the GPUs: worker i is shown GPU number i * gpus_per_trial alone.

    A context manager: leaving it ends every process. Inside, Ctrl-C raises KeyboardInterrupt between messages.
    """

    def __init__(self, objective: Callable[..., None], budget: SearchBudget) -> None:
        self.jobs, self._gpus_per_trial = budget.jobs or 1, budget.gpus_per_trial
        self._objective = objective
        self._workers: list[Worker] = []
        self._interrupts = Interrupts()
        self._template = Template(objective, threads(objective, self.jobs, os.environ.get("OMP_NUM_THREADS")))

    def __enter__(self) -> WorkerPool:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.__exit__()
        self.close()

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.link.close()
        self._template.close()

    def run(self, driver: Driver, log: TrialLog, epochs: int) -> None:
        """Run trials until the driver has no more."""
        loop = _Loop(self, driver, log, epochs)
        for slot in range(self.jobs):
            self.add_worker(slot)
        while loop.feed():
            driver.tick()
            for link in self._interrupts.wait([worker.link for worker in self._workers], driver.poll):
                worker = next(worker for worker in self._workers if worker.link is link)
                try:
                    message = worker.link.recv()
                except (EOFError, ConnectionError):
                    self._workers.remove(worker)
                    loop.lost(worker, self._how_it_ended(worker))
                else:
                    loop.handle(worker, message)

    @property
    def workers(self) -> list[Worker]:
        return self._workers

    def add_worker(self, slot: int) -> None:
        """Fork one more worker (once the template has its imports)."""
        environment = {"CUDA_VISIBLE_DEVICES": self._gpu(slot)} if self._gpus_per_trial else {}
        try:
            self._workers.append(Worker(connect(self._template.address, environment), slot))
        except OSError:
            raise ShardwaveError(f"the process that starts workers ended with exit status {self._template.exit_status}") from None

    def _gpu(self, slot: int) -> str:
        number = int(slot * self._gpus_per_trial)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",")[number] if visible else str(number)

    def _how_it_ended(self, worker: Worker) -> str:
        worker.link.close()
        return self._template.how_it_ended(worker.pid)


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
                _send(worker, work)
        more = not self.exhausted or bool(self.again)  # if so, some worker has yet to become idle
        return more or any(worker.work for worker in self.pool.workers)

    def _next_work(self) -> Assignment | None:
        if self.again:
            return self.again.popleft()
        assignment = None if self.exhausted else self.driver.ask()
        if assignment is None and not self.exhausted:
            self.exhausted = not self.driver.more()
        return assignment

    def handle(self, worker: Worker, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "report":
            _, number, epoch, value, spent, info = message
            trial = self.log.report(number, epoch, value, spent, info)
            _send(worker, self.driver.report(trial) and epoch < self.epochs or epoch > self.epochs)
        elif kind == "end":
            _, number, state, error, info = message
            worker.work = None
            self._end(number, state, error, info)
        elif kind == "started":
            worker.pid = message[1]
        elif kind == "ready":
            worker.ready, worker.idle, worker.name, self.deaths = True, True, message[1], 0
        elif kind == "idle":
            worker.idle = True
        elif kind == "broken":
            raise ShardwaveError(message[1])

    def lost(self, worker: Worker, reason: str) -> None:
        """A worker died: its trial runs again, unless that has happened to it too often."""
        if (lost := worker.work) is not None:
            if lost.attempt < MAX_ATTEMPTS:
                self.again.append(Assignment(lost.trial, lost.params, lost.attempt + 1))
            else:
                self._end(lost.trial, "FAILED", f"{reason}, in each of {MAX_ATTEMPTS} attempts", {})
        if not worker.ready:
            self.deaths += 1
            if self.deaths >= MAX_ATTEMPTS:
                raise ShardwaveError(f"search workers do not start: {reason.replace('its worker', 'the last one')}")
        self.pool.add_worker(worker.slot)

    def _end(self, number: int, state: str, error: str | None, info: dict[str, Any]) -> None:
        trial = self.log.running[number]
        if state == "PRUNED" and trial.epochs >= self.epochs:
            state = "COMPLETE"
        if state == "COMPLETE" and not trial.values:
            state, error = "FAILED", "the objective reported no value"
        trial.state, trial.error, trial.seconds = state, error, round(time.time() - trial.start, 6)
        trial.info.update(info)
        self.driver.end(trial)
        self.log.end(number, state, error, info)


def _send(worker: Worker, message: Any) -> None:
    """Send; a worker that is gone is found, with its work, by the next `wait`."""
    with contextlib.suppress(ConnectionError):
        worker.link.send(message)
