"""Pool of worker processes, for backends that schedule trials in the main process."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections import defaultdict, deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from shardwave.common.errors import ShardwaveError
from shardwave.search import gpus
from shardwave.search.budget import SearchBudget
from shardwave.search.trial import MAX_ATTEMPTS, Assignment, Info, final_state
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers import fork_server
from shardwave.search.workers.copy_owner import CopyOwner, request
from shardwave.search.workers.driver import Driver
from shardwave.search.workers.worker import threads_per_trial, worker_main


class Worker:
    """Handle of a worker process in the main process.

    Args:
        process: The process.
        link: Connection to the process.
        slot: Number of the worker, from 0 to jobs - 1; a replacement has the same number.
        gpu: The only visible GPU of the process; None: all GPUs are visible.
    """

    def __init__(self, process: BaseProcess, link: Connection, slot: int, gpu: str | None) -> None:
        self.process, self.link, self.slot, self.gpu = process, link, slot, gpu
        self.name = ""
        self.ready = False  # the objective is prepared
        self.idle = False  # waits for an assignment
        self.work: Assignment | None = None

    def send(self, message: Any) -> None:
        """Send a message; errors are ignored because the next `wait` detects a dead worker."""
        with contextlib.suppress(ConnectionError):
            self.link.send(message)

    def end(self) -> int | None:
        """Kill the process if it is running, and return its exit status."""
        self.process.kill()
        self.process.join()
        self.link.close()
        return self.process.exitcode


class WorkerPool:
    """Pool of worker processes; a context manager that ends the workers on exit.

    The fork server starts to import modules when the pool is created. The cores are divided evenly among the
    workers. With `budget.gpus_per_trial`, one GPU is visible to each worker, and the workers are distributed
    evenly over the GPUs. The workers of one GPU share the resident copies of a `CopyOwner`.

    Args:
        objective: See `shardwave.search.trial.Objective`.
        budget: The resolved budget; `budget.jobs` is the number of workers.

    Raises:
        UsageError: If the workers do not fit on the GPUs.
    """

    def __init__(self, objective: Callable[..., None], budget: SearchBudget) -> None:
        self._jobs = budget.jobs or 1
        self._gpus = gpus.visible_gpus() if budget.gpus_per_trial else []
        gpus.check_capacity(self._jobs, budget.gpus_per_trial, len(self._gpus))
        self._objective, self._modules = objective, getattr(objective, "modules", ())
        self._threads = threads_per_trial(objective, self._jobs)
        self.workers: list[Worker] = []
        self._owners: dict[str | None, CopyOwner] = {}  # by GPU
        fork_server.start(self._modules, self._threads)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.end()
        for owner in self._owners.values():
            owner.end()

    def run(self, driver: Driver, log: TrialLog, epochs: int) -> None:
        """Run trials until the driver has no more.

        Args:
            driver: Chooses the trials.
            log: Records the trials.
            epochs: Maximum number of epochs per trial.

        Raises:
            ShardwaveError: If workers cannot start, or a worker reports an error that ends the search.
        """
        loop = _TrialLoop(self, driver, log, epochs)
        while loop.assign():
            driver.tick()
            links = [owner.link for owner in self._owners.values()]
            ready = wait(links + [worker.link for worker in self.workers], driver.poll)
            self._end_workers_without_owner(loop)
            for worker in [worker for worker in self.workers if worker.link in ready]:
                if worker not in self.workers:
                    continue
                try:
                    message = worker.link.recv()
                except (EOFError, ConnectionError):
                    self.workers.remove(worker)
                    loop.handle_death(worker)
                else:
                    self._end_workers_without_owner(loop)
                    if worker in self.workers:
                        loop.handle(worker, message)

    def _end_workers_without_owner(self, loop: _TrialLoop) -> None:
        """End the workers whose `CopyOwner` has ended; their trials are repeated."""
        for gpu in [gpu for gpu, owner in self._owners.items() if owner.has_ended()]:
            status = self._owners.pop(gpu).end()
            workers = [worker for worker in self.workers if worker.gpu == gpu]
            self.workers = [worker for worker in self.workers if worker.gpu != gpu]
            loop.handle_owner_death(workers, status or 0)

    def start_missing(self, skipped: Callable[[str | None], bool]) -> None:
        """Start the workers that are not running, except on the GPUs for which `skipped` returns True."""
        running = {worker.slot for worker in self.workers}
        for slot in range(self._jobs):
            if slot not in running and not skipped(self._gpu(slot)):
                self._start_worker(slot)

    def end_neighbours(self, worker: Worker) -> None:
        """End the other workers on the GPU of `worker`, so that all of its memory is free."""
        for neighbour in self.neighbours(worker):
            self.workers.remove(neighbour)
            neighbour.end()

    def neighbours(self, worker: Worker) -> list[Worker]:
        """Return the other workers on the GPU of `worker`."""
        return [other for other in self.workers if other is not worker and other.gpu == worker.gpu]

    def _start_worker(self, slot: int) -> None:
        """Start a worker in the given slot.

        Raises:
            ShardwaveError: If the fork server has ended.
        """
        link, worker_link = fork_server.CONTEXT.Pipe()
        gpu = self._gpu(slot)
        shared = None
        if self._shares_copies(gpu):
            if gpu not in self._owners:
                self._owners[gpu] = CopyOwner(self._objective, gpu, self._threads)
            shared = functools.partial(request, self._owners[gpu].address)
        process = fork_server.CONTEXT.Process(
            target=worker_main,
            args=(
                worker_link,
                self._objective,
                self._threads,
                gpu,
                shared,
                fork_server.folder(),
                fork_server.variables(),
            ),
            name=f"search-{slot}",
        )
        try:
            fork_server.start(self._modules, self._threads, process)
        except (OSError, EOFError) as error:
            modules = ", ".join(self._modules)
            raise ShardwaveError(
                f"the process that starts workers ended while it imported {modules}"
            ) from error
        worker_link.close()
        self.workers.append(Worker(process, link, slot, gpu))

    def _gpu(self, slot: int) -> str | None:
        return self._gpus[slot % len(self._gpus)] if self._gpus else None

    def _shares_copies(self, gpu: str | None) -> bool:
        several = sum(self._gpu(slot) == gpu for slot in range(self._jobs)) > 1
        return gpu is not None and several and hasattr(self._objective, "load_copy")


class _TrialLoop:
    """Passes messages between the driver, the workers and the log."""

    def __init__(self, pool: WorkerPool, driver: Driver, log: TrialLog, epochs: int) -> None:
        self.pool, self.driver, self.log, self.epochs = pool, driver, log, epochs
        self.retries: deque[Assignment] = deque()  # assigned before new trials
        # retries that wait until no other trial uses their GPU, by GPU; assigned first
        self.alone: dict[str | None, deque[Assignment]] = defaultdict(deque)
        self.exhausted = False  # the driver has no more trials
        self.deaths = 0  # consecutive deaths of workers before they were ready

    def assign(self) -> bool:
        """Start missing workers and assign trials to idle ones; return False if all trials have ended."""
        self.pool.start_missing(self._is_reserved)
        for worker in list(self.pool.workers):
            if worker.idle and worker in self.pool.workers and (work := self._next_work(worker)) is not None:
                worker.idle, worker.work = False, work
                self.log.start(work, worker.name)
                worker.send(work)
        unassigned = not self.exhausted or bool(self.retries) or any(self.alone.values())
        return unassigned or any(worker.work for worker in self.pool.workers)

    def _is_reserved(self, gpu: str | None) -> bool:
        """Return whether a trial runs alone on a GPU, or waits to do so."""
        running = any(each.work and each.work.alone for each in self.pool.workers if each.gpu == gpu)
        return running or (bool(self.alone[gpu]) and any(each.gpu == gpu for each in self.pool.workers))

    def _next_work(self, worker: Worker) -> Assignment | None:
        if self.alone[worker.gpu]:
            if any(neighbour.work for neighbour in self.pool.neighbours(worker)):
                return None  # wait until these trials have ended
            self.pool.end_neighbours(worker)
            return self.alone[worker.gpu].popleft()
        if self.retries:
            return self.retries.popleft()
        if self.exhausted:
            return None
        work = self.driver.ask()
        self.exhausted = work is None and not self.driver.expects_more()
        return work

    def handle(self, worker: Worker, message: tuple[Any, ...]) -> None:
        """Handle one message of a worker, see `worker_main`; raises ShardwaveError for a "broken" worker."""
        kind, *values = message
        if kind == "ready":
            worker.ready, worker.idle, worker.name, self.deaths = True, True, values[0], 0
        elif kind == "report":
            trial = self.log.report(*values)
            stopped = self.driver.report(trial)
            worker.send(trial.epochs > self.epochs or (stopped and trial.epochs < self.epochs))
        elif kind == "end":
            work, worker.idle, worker.work = worker.work, True, None
            assert work is not None
            number, ending = values
            error = ending.error
            if ending.out_of_gpu_memory:
                if not work.alone and self.pool.neighbours(worker):
                    again = dataclasses.replace(work, attempt=work.attempt + 1, alone=True)
                    self.alone[worker.gpu].append(again)
                    return
                error = f"{error}, although no other trial of this search used the GPU"
            self._end(number, ending.state, error, ending.info)
        else:
            raise ShardwaveError(values[0])

    def handle_death(self, worker: Worker) -> None:
        """Handle a worker that has died: repeat its trial, or end the trial after MAX_ATTEMPTS attempts."""
        worker.process.join(5)
        reason = _described(worker.end() or 0)
        self._repeat(worker, reason)
        if not worker.ready:
            self._count_death(reason)

    def handle_owner_death(self, workers: list[Worker], status: int) -> None:
        """Handle the end of a `CopyOwner`: end its workers and repeat their trials."""
        reason = f"lost the process that holds the data on its GPU, which {_described(status)}"
        for worker in workers:
            worker.end()
            self._repeat(worker, reason)
        if not any(worker.ready for worker in workers):
            self._count_death(reason)

    def _repeat(self, worker: Worker, reason: str) -> None:
        if worker.work is not None:
            work = worker.work
            if work.attempt < MAX_ATTEMPTS:
                again = dataclasses.replace(work, attempt=work.attempt + 1)
                (self.alone[worker.gpu] if work.alone else self.retries).append(again)
            else:
                self._end(
                    work.trial, "FAILED", f"its worker {reason}, in each of {MAX_ATTEMPTS} attempts", {}
                )

    def _count_death(self, reason: str) -> None:
        self.deaths += 1
        if self.deaths >= MAX_ATTEMPTS:
            raise ShardwaveError(f"search workers do not start: the last one {reason}")

    def _end(self, number: int, state: str, error: str | None, info: Info) -> None:
        trial = self.log.running[number]
        trial.state, trial.error = final_state(trial, state, error, self.epochs)
        trial.seconds = round(time.time() - trial.start, 6)
        trial.info.update(info)
        self.driver.end(trial)
        self.log.end(number, trial.state, trial.error)


def _described(status: int) -> str:
    """Describe the exit status of a process."""
    reason = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    return reason + " (out of memory?)" * (status == -9)
