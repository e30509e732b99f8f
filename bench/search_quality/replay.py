"""Replay of one search in simulated time on recorded learning curves instead of trainings."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from shardwave.bench.search_quality.curves import Row
from shardwave.bench.search_quality.strategies import Driver
from shardwave.search.trial import Assignment, Trial


class Curves(Protocol):
    """Learning curves of all points of a space."""

    def lookup(self, params: Mapping[str, Any]) -> Row:
        """Return the learning curve of a point."""
        ...


class Step(NamedTuple):
    """One epoch of a replayed search."""

    seconds: float  # simulated seconds since the start
    epochs: int  # spent, with this one
    best: float  # best validation accuracy so far
    test: float  # test accuracy of the epoch with the best validation accuracy; NaN if not recorded


class Search(NamedTuple):
    """A replayed search: the steps at which the best value rose, and the last one.

    Attributes:
        steps: Steps, in order of time.
        trials: Number of trials that were started.
        ask_seconds: CPU time of the decisions, which is not part of the simulated time.
    """

    steps: list[Step]
    trials: int
    ask_seconds: float


def replay_one(table: Curves, driver: Driver, workers: int, epochs: int, budget: int) -> Search:
    """Replay a search on a table.

    The value of an epoch is reported to the driver when the simulated clock reaches its end, as in a search.

    Args:
        table: Learning curves.
        driver: Strategy.
        workers: Trials at the same time.
        epochs: Largest number of epochs of a trial.
        budget: Epochs of all trials together.

    Returns:
        The search.
    """
    trials: dict[int, Trial] = {}
    rows: dict[int, Row] = {}
    running: list[tuple[float, int, int]] = []  # (end of the current epoch, order, trial)
    steps: list[Step] = []
    clock, order, idle, started, ended = 0.0, 0, workers, 0, 0
    best, test, ask_seconds = -math.inf, math.nan, 0.0

    def begin(number: int) -> None:
        nonlocal order, started
        if started >= budget:
            return
        started += 1
        order += 1
        heapq.heappush(running, (clock + rows[number].seconds, order, number))

    def ask() -> Assignment | None:
        nonlocal ask_seconds
        before = time.process_time()
        assignment = driver.ask()
        ask_seconds += time.process_time() - before
        return assignment

    while True:
        while idle and started < budget and (assignment := ask()) is not None:
            number = assignment.trial
            if number not in trials:
                trials[number] = Trial(number, assignment.params)
                rows[number] = table.lookup(assignment.params)
            trials[number].state = "RUNNING"
            idle -= 1
            begin(number)
        if not running:
            return Search(steps, len(trials), ask_seconds)
        clock, _, number = heapq.heappop(running)
        ended += 1
        trial, row = trials[number], rows[number]
        trial.values.append(row.values[trial.epochs])
        if steps and steps[-1].best == best and len(steps) > 1 and steps[-2].best == best:
            steps.pop()  # the last step so far, at which the best value had not risen
        found = row.found[trial.epochs - 1] if row.found else trial.values[-1]
        if found > best:
            best = found
            test = row.test[trial.epochs - 1] if row.test else math.nan
        steps.append(Step(clock, ended, best, test))
        before = time.process_time()
        stopped = driver.report(trial)
        if stopped or trial.epochs >= epochs:
            trial.state = "PRUNED" if stopped and trial.epochs < epochs else "COMPLETE"
            driver.end(trial)
            idle += 1
        else:
            begin(number)
        ask_seconds += time.process_time() - before
