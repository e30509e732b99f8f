"""The reference backend: points of the space in order of their number, no dependency; schedulers `none` and `median`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, SearchResult, Trial
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers.pool import Driver, WorkerPool

MEDIAN_TRIALS = 3  # as many others must have reached an epoch before the median rule stops a trial there


class RandomBackend:
    """Random search (or the grid in order), with the median stopping rule where asked for.

    Promises: the parameters of every trial follow from the seed alone; with one job, so does all the rest.
    """

    name = "random"

    def run(
        self, objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog | None = None
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        driver = PointsDriver(space, budget, seed, log)
        return run_in_pool(objective, driver, budget, log)


class PointsDriver(Driver):
    """Hands out the space's points by number, lost trials first, and stops by the median rule."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> None:
        self._median, self._grace, self._log = budget.scheduler == "median", budget.grace, log
        lost = {assignment.trial: assignment for assignment in log.lost()}
        shuffle = budget.sampler != "grid"
        self._queue = [
            lost.get(number) or Assignment(number, space.point(number, seed, shuffle=shuffle))
            for number in sorted(range(budget.trials), key=lambda number: (number not in lost, number))
            if number not in log.finished
        ]
        self._queue.reverse()

    def ask(self) -> Assignment | None:
        return self._queue.pop() if self._queue else None

    def report(self, trial: Trial) -> bool:
        """Median stopping rule (Golovin et al., "Google Vizier", KDD 2017, section 3.2.2): stop a trial whose best value is below
        the median of the others' running averages up to the same epoch."""
        if not self._median or trial.epochs < self._grace:
            return False
        others = [*self._log.finished.values(), *self._log.running.values()]
        averages = [
            statistics.fmean(other.values[: trial.epochs])
            for other in others
            if other.trial != trial.trial and other.state != "FAILED" and other.epochs >= trial.epochs
        ]
        return len(averages) >= MEDIAN_TRIALS and max(trial.values) < statistics.median(averages)


def run_in_pool(
    objective: Callable[..., None],
    driver: Driver,
    budget: SearchBudget,
    log: TrialLog,
    pool: WorkerPool | None = None,
) -> SearchResult:
    """Run a driver's trials in worker processes; Ctrl-C ends them and returns what there is."""
    started = time.perf_counter()
    try:
        with pool or WorkerPool(objective, budget) as workers:
            workers.run(driver, log, budget.epochs)
    except KeyboardInterrupt:
        return SearchResult("INTERRUPTED", log.trials, time.perf_counter() - started)
    return conclude(log, time.perf_counter() - started)


def conclude(log: TrialLog, seconds: float) -> SearchResult:
    """The result of a search that ran to its end: FAILED when no trial succeeded."""
    result = SearchResult("COMPLETE", log.trials, seconds)
    if result.best is None:
        result.state = "FAILED"
        first = result.trials[0].error if result.trials else "none was started"
        result.error = f"all {len(result.trials)} trials failed; the first: {first}"
    return result
