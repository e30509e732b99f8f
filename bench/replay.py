"""`bench search`: backends compared on recorded learning curves, in simulated time; only the training is looked up."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import curves, strategies
from bench.curves import Table
from bench.record import Record, append, quartiles
from bench.strategies import Driver
from preprocess.errors import UsageError
from search.budget import SearchBudget
from search.trial import Trial

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
        heapq.heappush(running, (clock + table.lookup(trials[number].params).seconds, order, number))

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
        trial.values.append(table.lookup(trial.params).values[trial.epochs])
        best = max(best, trial.values[-1])
        steps.append(Step(clock, len(steps) + 1, best))
        stopped = driver.report(trial)
        if stopped or trial.epochs >= epochs:
            trial.state = "PRUNED" if stopped and trial.epochs < epochs else "COMPLETE"
            driver.end(trial)
            idle += 1
        else:
            begin(number)


def at(steps: Sequence[Step], axis: str, point: float) -> float:
    """The best value when `axis` (seconds or epochs) reaches `point`; 0 before the first epoch ends."""
    value = 0.0
    for step in steps:
        if getattr(step, axis) > point:
            break
        value = step.best
    return value


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
    processes: int | None = None,
) -> dict[str, Any]:
    """Replay every backend x sampler x scheduler on `table` (none: those of the project); write records and report to `out`.

    Every search may spend `trainings` x `epochs` epochs (`epochs`: at most what the table has). `only`: strategies whose name
    contains one of these texts. A record holds the final regret (best value in the table minus best value found) of every seed,
    and in its parameters the curves over epochs and over time: [point, q1, median, q3].
    """
    from tqdm import tqdm

    from bench.pool import Pool
    from bench.report import write
    from preprocess.environment import cores

    out = Path(out)
    paths = [Path(table)] if table else sorted(curves.FOLDER.glob("*.jsonl"))
    if not paths:
        raise UsageError(f"no table of learning curves in {curves.FOLDER}: record one, or name it with --table")
    for number, name in ((seeds, "--seeds"), (trainings, "--trainings"), *((count, "--workers") for count in workers)):
        if number < 1:
            raise UsageError(f"{name} must be 1 or more, got {number}")
    chosen = [name for name in strategies.names() if not only or any(text in name for text in only)]
    if not chosen:
        raise UsageError(f"--only {', '.join(only)} fits none of {', '.join(strategies.names())}")
    if (out / "records.jsonl").exists():
        raise UsageError(f"--out {out} holds bench records already: name a new folder")
    read = {path: curves.read(path) for path in paths}
    for path, one in read.items():
        if epochs is not None and not 1 <= epochs <= one.epochs:
            raise UsageError(f"--epochs must lie between 1 and {one.epochs}, the epochs that {path} holds, got {epochs}")
    out.mkdir(parents=True, exist_ok=True)
    pool = Pool(processes or cores())
    try:
        total = len(paths) * len(workers) * len(chosen) * seeds
        with tqdm(total=total, desc="searches replayed", unit="search", disable=quiet()) as bar:
            for path, found_table in read.items():
                length = epochs or min(EPOCHS, found_table.epochs)
                job = pool.prepare(replay_setup, str(path), length, trainings)
                for count in workers:
                    tasks = [(name, count, seed) for name in chosen for seed in range(seeds)]
                    found: dict[str, list[list[Step]]] = {name: [] for name in chosen}
                    for task, steps in zip(tasks, pool.stream(job, tasks), strict=True):
                        found[task[0]].append(steps)
                        bar.update()
                    for record in _records(found_table, count, length, trainings, found):
                        append(out / "records.jsonl", record)
    finally:
        pool.close()
    write([out], out / "report.html")
    return {
        "records": str(out / "records.jsonl"),
        "report": str(out / "report.html"),
        "searches": total,
        "tables": list(map(str, paths)),
    }


def quiet() -> bool | None:
    """tqdm's `disable`: where the user asked for silence, or standard error is no terminal (None: tqdm looks)."""
    import os

    return True if os.environ.get("SHARDWAVE_QUIET") == "1" else None


def _records(table: Table, workers: int, epochs: int, trainings: int, found: dict[str, list[list[Step]]]) -> list[Record]:
    """One record per strategy: final regrets, curves, mean rank among all strategies over the seeds."""
    budget = trainings * epochs
    end = max(steps[-1].seconds for runs in found.values() for steps in runs)
    ranks = _ranks({name: [steps[-1].best for steps in runs] for name, runs in found.items()})
    marks = {
        "epochs": [budget * (i + 1) / GRID for i in range(GRID)],
        "seconds": [end * (i + 1) / GRID for i in range(GRID)],
    }
    records = []
    for name, runs in found.items():
        over = {
            axis: [_band(point, [at(steps, axis, point) for steps in runs]) for point in points] for axis, points in marks.items()
        }
        params = {
            "table": table.name, "configurations": len(table.rows), "best": table.best, "workers": workers, "epochs": epochs,
            "trainings": trainings, "seeds": len(runs), "rank": round(ranks[name], 2), "over": over,
            "seconds": round(statistics.median(steps[-1].seconds for steps in runs), 2),
        }  # fmt: skip
        role = "peer" if name in strategies.BASELINES else "ours"
        case = f"{table.name}, {workers} workers: {strategies.label(name)}"
        records.append(Record(STAGE, case, role, "regret", [table.best - steps[-1].best for steps in runs], params))
    return records


def _band(point: float, values: Sequence[float]) -> list[float]:
    q1, q3 = quartiles(values)
    return [round(point, 3), round(q1, 4), round(statistics.median(values), 4), round(q3, 4)]


def _ranks(values: dict[str, list[float]]) -> dict[str, float]:
    """Mean rank over the seeds (1 = best; equals share the mean of their ranks)."""
    names = list(values)
    total = dict.fromkeys(names, 0.0)
    seeds = len(next(iter(values.values())))
    for seed in range(seeds):
        for name in names:
            mine = values[name][seed]
            better = sum(values[other][seed] > mine for other in names)
            equal = sum(values[other][seed] == mine for other in names)
            total[name] += better + (equal + 1) / 2
    return {name: total[name] / seeds for name in names}
