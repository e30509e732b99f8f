"""`bench search`: backends compared on recorded learning curves, in simulated time; only the training is looked up."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
EPOCHS = 10  # of a full training, where the table has as many
BUDGET = 20  # full trainings' worth of epochs
WORKERS = (1, 4, 16)
GRID = 40  # points of a stored curve


class Step(NamedTuple):
    """One epoch of a replayed search."""

    seconds: float  # simulated, since the start
    epochs: int  # spent so far, this one included
    best: float  # best value so far


def replay_one(table: Table, driver: Driver, workers: int, epochs: int, budget: int) -> list[Step]:
    """Run a search against the table: `workers` at a time, trials of at most `epochs`, until `budget` epochs are spent.

    The event loop knows what a trial's next epoch is worth only when the simulated clock reaches its end, as in a real search.
    """
    trials: dict[int, Trial] = {}
    running: list[tuple[float, int, int]] = []  # (when the epoch under way ends, order, trial)
    steps: list[Step] = []
    clock, order, best, idle, begun = 0.0, 0, -math.inf, workers, 0

    def begin(number: int) -> None:
        nonlocal order, begun
        if begun >= budget:
            return
        begun += 1
        order += 1
        heapq.heappush(running, (clock + table.lookup(trials[number].params)["seconds"], order, number))

    while True:
        while idle and begun < budget and (asked := driver.ask()) is not None:
            if asked.trial not in trials:
                trials[asked.trial] = Trial(asked.trial, asked.params)
            trials[asked.trial].state = "RUNNING"
            idle -= 1
            begin(asked.trial)
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
    """The best value when `axis` (seconds or epochs) reaches each of `points`; 0 before the first epoch ends."""
    reached = np.searchsorted([getattr(step, axis) for step in steps], points, side="right")
    return np.array([0.0, *(step.best for step in steps)])[reached]


def replay_setup(path: str, epochs: int, trainings: int) -> Callable[[tuple[str, int, int]], list[Step]]:
    """For a worker process: `work((strategy, workers, seed))` replays one search against the table at `path`."""
    table = curves.read(Path(path))
    budget = trainings * epochs

    def work(task: tuple[str, int, int]) -> list[Step]:
        name, workers, seed = task
        # as many trials as there are epochs: no strategy runs out of trials before the epochs are spent
        driver = strategies.make_driver(name, table.space, SearchBudget(trials=budget, epochs=epochs, jobs=workers), seed)
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
) -> dict[str, Any]:
    """Replay every backend x sampler x scheduler on recorded curves; write records and report to `out`.

    A record holds the final regret (best value in the table minus best value found) of every seed, and in its parameters
    the curves over epochs and over time: [point, q1, median, q3].

    Args:
        out: A new folder.
        table: A file of learning curves, or the run folder of a search; None: the table that comes with the project.
        workers: Simulated workers; each number is a comparison of its own.
        seeds: Searches per strategy, seeds 0 to seeds - 1.
        epochs: Of a full training; None: EPOCHS, or what the table has.
        trainings: Every search may spend `trainings` x `epochs` epochs.
        only: Strategies whose name contains one of these texts.
    """
    from shardwave.bench.harness.pool import Pool
    from shardwave.bench.report.page import write
    from shardwave.common.environment import cores
    from shardwave.common.progress import bar

    out, path = Path(out), Path(table or curves.DEFAULT)
    for number, name in ((seeds, "--seeds"), (trainings, "--trainings"), *((count, "--workers") for count in workers)):
        if number < 1:
            raise UsageError(f"{name} must be 1 or more, got {number}")
    chosen = [name for name in strategies.names() if not only or any(text in name for text in only)]
    if not chosen:
        raise UsageError(f"--only {', '.join(only)} fits none of {', '.join(strategies.names())}")
    if (out / "records.jsonl").exists():
        raise UsageError(f"--out {out} holds bench records already: name a new folder")
    recorded = curves.read(path)
    if epochs is not None and not 1 <= epochs <= recorded.epochs:
        raise UsageError(f"--epochs must lie between 1 and {recorded.epochs}, the epochs that {path} holds, got {epochs}")
    length = epochs or min(EPOCHS, recorded.epochs)
    out.mkdir(parents=True, exist_ok=True)
    total = len(workers) * len(chosen) * seeds
    pool = Pool(cores())
    try:
        job = replay_setup, str(path), length, trainings
        with bar(total=total, desc="searches replayed", unit="search") as progress:
            for count in workers:
                tasks = [(name, count, seed) for name in chosen for seed in range(seeds)]
                found: dict[str, list[list[Step]]] = {name: [] for name in chosen}
                for task, steps in zip(tasks, pool.map(tasks, *job), strict=True):
                    found[task[0]].append(steps)
                    progress.update()
                for record in _records(recorded, count, length, trainings, found):
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


def _records(table: Table, workers: int, epochs: int, trainings: int, found: dict[str, list[list[Step]]]) -> list[Record]:
    """One record per strategy: final regrets, curves, mean rank among all strategies over the seeds."""
    ends = np.array([[steps[-1].best for steps in runs] for runs in found.values()])
    ranks = dict(zip(found, rankdata(-ends, axis=0).mean(axis=1), strict=True))  # 1 = best; equals share the mean of their ranks
    last = {"epochs": trainings * epochs, "seconds": max(steps[-1].seconds for runs in found.values() for steps in runs)}
    records = []
    for name, runs in found.items():
        over: dict[str, list[list[float]]] = {}
        for axis, end in last.items():
            points = [end * (i + 1) / GRID for i in range(GRID)]
            best = np.array([best_at(steps, axis, points) for steps in runs])
            bands = np.quantile(best, (0.25, 0.5, 0.75), axis=0).T
            over[axis] = [[round(point, 3), *band] for point, band in zip(points, bands.round(4).tolist(), strict=True)]
        params = {
            "table": table.name, "configurations": len(table.rows), "best": table.best, "workers": workers, "epochs": epochs,
            "trainings": trainings, "seeds": len(runs), "rank": round(float(ranks[name]), 2), "over": over,
            "seconds": round(statistics.median(steps[-1].seconds for steps in runs), 2),
        }  # fmt: skip
        role = "peer" if name in strategies.BASELINES else "ours"
        case = f"{table.name}, {workers} workers: {strategies.label(name)}"
        records.append(Record(STAGE, case, role, "regret", [table.best - steps[-1].best for steps in runs], params))
    return records
