"""`bench search`: backends compared in simulated time on recorded learning curves instead of trainings."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from scipy.stats import rankdata

from shardwave.bench.harness.record import Record, append
from shardwave.bench.search_quality import curves, strategies
from shardwave.bench.search_quality.curves import Table
from shardwave.bench.search_quality.strategies import Driver
from shardwave.common.errors import UsageError
from shardwave.search.budget import SearchBudget
from shardwave.search.trial import Trial

STAGE = "search-quality"
EPOCHS = 10  # of a full training, or all epochs of a shorter table
BUDGET = 20  # full trainings
WORKERS = (1, 4, 16)
GRID = 40  # points of a stored curve


class Replayed(TypedDict):
    """Paths of the results of `replay`, and the number of searches."""

    records: str
    report: str
    searches: int
    table: str


class Step(NamedTuple):
    """One epoch of a replayed search."""

    seconds: float  # simulated seconds since the start
    epochs: int  # spent, with this one
    best: float  # best value so far


def replay_one(table: Table, driver: Driver, workers: int, epochs: int, budget: int) -> list[Step]:
    """Replay a search on a table.

    The value of an epoch is reported to the driver when the simulated clock reaches its end, as in a search.

    Args:
        table: Learning curves.
        driver: Strategy.
        workers: Trials at the same time.
        epochs: Largest number of epochs of a trial.
        budget: Epochs of all trials together.

    Returns:
        One step per epoch, in order of time.
    """
    trials: dict[int, Trial] = {}
    running: list[tuple[float, int, int]] = []  # (end of the current epoch, order, trial)
    steps: list[Step] = []
    clock, order, best, idle, epochs_started = 0.0, 0, -math.inf, workers, 0

    def begin(number: int) -> None:
        nonlocal order, epochs_started
        if epochs_started >= budget:
            return
        epochs_started += 1
        order += 1
        heapq.heappush(running, (clock + table.lookup(trials[number].params)["seconds"], order, number))

    while True:
        while idle and epochs_started < budget and (assignment := driver.ask()) is not None:
            if assignment.trial not in trials:
                trials[assignment.trial] = Trial(assignment.trial, assignment.params)
            trials[assignment.trial].state = "RUNNING"
            idle -= 1
            begin(assignment.trial)
        if not running:
            return steps
        clock, _, number = heapq.heappop(running)
        trial = trials[number]
        trial.values.append(table.lookup(trial.params)["values"][trial.epochs])
        best = max(best, trial.values[-1])
        steps.append(Step(clock, len(steps) + 1, best))
        stopped = driver.report(trial)
        if stopped or trial.epochs >= epochs:
            trial.state = "PRUNED" if stopped and trial.epochs < epochs else "COMPLETE"
            driver.end(trial)
            idle += 1
        else:
            begin(number)


def best_at(steps: Sequence[Step], axis: str, points: Sequence[float]) -> np.ndarray:
    """Return the best value at each of `points`, 0 before the end of the first epoch.

    Args:
        steps: Steps of a search.
        axis: `seconds` or `epochs`.
        points: Ascending values of the axis.
    """
    reached = np.searchsorted([getattr(step, axis) for step in steps], points, side="right")
    return np.array([0.0, *(step.best for step in steps)])[reached]


def replay_setup(path: str, epochs: int, trainings: int) -> Callable[[tuple[str, int, int]], list[Step]]:
    """Return `work((strategy, workers, seed))`, which replays one search, for a worker process.

    Args:
        path: Table.
        epochs: Largest number of epochs of a trial.
        trainings: Budget of a search in full trainings.
    """
    table = curves.read(Path(path))
    budget = trainings * epochs

    def work(task: tuple[str, int, int]) -> list[Step]:
        name, workers, seed = task
        # one trial per epoch, so that epochs limit the search and trials do not
        driver = strategies.make_driver(
            name, table.space, SearchBudget(trials=budget, epochs=epochs, jobs=workers), seed
        )
        return replay_one(table, driver, workers, epochs, budget)

    return work


def replay(
    out: Path | str,
    table: Path | str | None = None,
    workers: Sequence[int] = WORKERS,
    seeds: int = 20,
    epochs: int | None = None,
    trainings: int = BUDGET,
    only: Sequence[str] = (),
) -> Replayed:
    """Replay all strategies on recorded learning curves, and write records and a report.

    The repeats of a record are the final regrets by seed: best value of the table minus best value of the
    search. Its parameters hold the best value over epochs and over time as [point, q1, median, q3].

    Args:
        out: New folder of the results.
        table: Table of learning curves, or run folder of a search; None is the table of the project.
        workers: Numbers of simulated workers, compared separately.
        seeds: Searches per strategy, seeds 0 to seeds - 1.
        epochs: Epochs of a full training; None is EPOCHS, or all epochs of a shorter table.
        trainings: Budget of a search in full trainings.
        only: Texts, one of which the names of the strategies contain.

    Returns:
        Paths of the records, of the report and of the table, and the number of searches.

    Raises:
        UsageError: An option is invalid, or `out` holds records.
    """
    from shardwave.bench.harness.pool import Pool
    from shardwave.bench.report.page import write
    from shardwave.common.environment import cores
    from shardwave.common.progress import bar

    out, path = Path(out), Path(table or curves.DEFAULT)
    for number, name in (
        (seeds, "--seeds"),
        (trainings, "--trainings"),
        *((count, "--workers") for count in workers),
    ):
        if number < 1:
            raise UsageError(f"{name} must be 1 or more, got {number}")
    chosen = [name for name in strategies.names() if not only or any(text in name for text in only)]
    if not chosen:
        raise UsageError(
            f"--only {', '.join(only)} matches no strategy; strategies: {', '.join(strategies.names())}"
        )
    if (out / "records.jsonl").exists():
        raise UsageError(f"--out {out} holds bench records already: name a new folder")
    recorded = curves.read(path)
    if epochs is not None and not 1 <= epochs <= recorded.epochs:
        raise UsageError(
            f"--epochs must be between 1 and {recorded.epochs}, the epochs of {path}, got {epochs}"
        )
    length = epochs or min(EPOCHS, recorded.epochs)
    out.mkdir(parents=True, exist_ok=True)
    total = len(workers) * len(chosen) * seeds
    pool = Pool(cores())
    try:
        job = replay_setup, str(path), length, trainings
        with bar(total=total, desc="searches replayed", unit="search") as progress:
            for count in workers:
                tasks = [(name, count, seed) for name in chosen for seed in range(seeds)]
                searches: dict[str, list[list[Step]]] = {name: [] for name in chosen}
                for task, steps in zip(tasks, pool.map(tasks, *job), strict=True):
                    searches[task[0]].append(steps)
                    progress.update()
                for record in _records(recorded, count, length, trainings, searches):
                    append(out / "records.jsonl", record)
    finally:
        pool.close()
    write([out], out / "report.html")
    return {
        "records": str(out / "records.jsonl"),
        "report": str(out / "report.html"),
        "searches": total,
        "table": str(path),
    }


def _records(
    table: Table, workers: int, epochs: int, trainings: int, searches: dict[str, list[list[Step]]]
) -> list[Record]:
    """One record per strategy: final regrets, curves, and the mean rank over the seeds."""
    ends = np.array([[steps[-1].best for steps in runs] for runs in searches.values()])
    ranks = dict(zip(searches, rankdata(-ends, axis=0).mean(axis=1), strict=True))  # 1 is best
    last = {
        "epochs": trainings * epochs,
        "seconds": max(steps[-1].seconds for runs in searches.values() for steps in runs),
    }
    records = []
    for name, runs in searches.items():
        over: dict[str, list[list[float]]] = {}
        for axis, end in last.items():
            points = [end * (i + 1) / GRID for i in range(GRID)]
            best = np.array([best_at(steps, axis, points) for steps in runs])
            bands = np.quantile(best, (0.25, 0.5, 0.75), axis=0).T
            over[axis] = [
                [round(point, 3), *band] for point, band in zip(points, bands.round(4).tolist(), strict=True)
            ]
        params = {
            "table": table.name, "configurations": len(table.rows), "best": table.best, "workers": workers,
            "epochs": epochs,
            "trainings": trainings, "seeds": len(runs), "rank": round(float(ranks[name]), 2), "over": over,
            "seconds": round(statistics.median(steps[-1].seconds for steps in runs), 2),
        }  # fmt: skip
        role = "peer" if name in strategies.BASELINES else "ours"
        case = f"{table.name}, {workers} workers: {strategies.label(name)}"
        records.append(
            Record(STAGE, case, role, "regret", [table.best - steps[-1].best for steps in runs], params)
        )
    return records
