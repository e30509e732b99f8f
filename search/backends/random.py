"""The random backend, which needs no package: random and grid sampling, median stopping or none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, Params, SearchResult, Trial
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers.driver import Driver
from shardwave.search.workers.pool import WorkerPool

MEDIAN_TRIALS = 3  # minimum number of other trials at an epoch for the median rule


class RandomBackend:
    """Random or grid search, optionally with the median stopping rule.

    The parameters of every trial depend on the seed alone. With one job, the whole search depends on the
    seed alone.
    """

    name = "random"

    def run(
        self,
        objective: Callable[..., None],
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog | None = None,
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        driver = PointsDriver(space, budget, seed, log)
        return run_in_pool(objective, driver, budget, log)


class PointsDriver(Driver):
    """Driver that assigns the points of a space in order of their numbers, unfinished trials first.

    Args:
        space: The search space.
        budget: The resolved budget.
        seed: Seed of the search.
        log: Log of the trials; finished ones are not assigned.
    """

    def __init__(self, space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> None:
        self._median, self._grace_period, self._log = budget.scheduler == "median", budget.grace_period, log
        unfinished = {assignment.trial: assignment for assignment in log.unfinished()}
        self._queue = [
            unfinished.get(number) or Assignment(number, fixed_point(space, budget, number, seed))
            for number in sorted(range(budget.trials), key=lambda number: (number not in unfinished, number))
            if number not in log.finished
        ]
        self._queue.reverse()

    def ask(self) -> Assignment | None:
        """See `Driver.ask`."""
        return self._queue.pop() if self._queue else None

    def report(self, trial: Trial) -> bool:
        """See `Driver.report`.

        The median rule (Golovin et al., "Google Vizier", KDD 2017, section 3.2.2) stops a trial if its best
        value is below the median of the other trials' mean values up to the same epoch.
        """
        if not self._median or trial.epochs < self._grace_period:
            return False
        others = [*self._log.finished.values(), *self._log.running.values()]
        averages = [
            statistics.fmean(other.values[: trial.epochs])
            for other in others
            if other.trial != trial.trial and other.state != "FAILED" and other.epochs >= trial.epochs
        ]
        return len(averages) >= MEDIAN_TRIALS and max(trial.values) < statistics.median(averages)


def fixed_point(space: Space, budget: SearchBudget, number: int, seed: int) -> Params:
    """Return the parameters of a trial of the random and grid samplers, which depend on the arguments only.

    Args:
        space: The search space.
        budget: The resolved budget.
        number: Number of the trial.
        seed: Seed of the search.
    """
    point = space.point(number, seed, shuffle=budget.sampler != "grid")
    return {**point, **(space.first_trial(number, budget.first_trial) or {})}


def run_in_pool(
    objective: Callable[..., None],
    driver: Driver,
    budget: SearchBudget,
    log: TrialLog,
    pool: WorkerPool | None = None,
) -> SearchResult:
    """Run the trials of a driver in worker processes.

    Args:
        objective: See `shardwave.search.trial.Objective`.
        driver: Chooses the trials.
        budget: The resolved budget.
        log: Records the trials.
        pool: The pool of workers; None: a new one.

    Returns:
        The result; after Ctrl-C its state is INTERRUPTED.
    """
    started = time.perf_counter()
    try:
        with pool or WorkerPool(objective, budget) as workers:
            workers.run(driver, log, budget.epochs)
    except KeyboardInterrupt:
        return SearchResult("INTERRUPTED", log.trials, time.perf_counter() - started)
    return final_result(log, time.perf_counter() - started)


def final_result(log: TrialLog, seconds: float) -> SearchResult:
    """Return the result of a search that ended; its state is FAILED if no trial succeeded."""
    result = SearchResult("COMPLETE", log.trials, seconds)
    if result.best is None:
        result.state = "FAILED"
        first = result.trials[0].error if result.trials else "none was started"
        result.error = f"all {len(result.trials)} trials failed; the first: {first}"
    return result
