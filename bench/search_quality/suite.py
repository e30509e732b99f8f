"""`bench search`: search strategies compared in simulated time on recorded learning curves."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from scipy.stats import rankdata

from shardwave.bench.harness.record import Record, append
from shardwave.bench.search_quality import curves, measures, strategies
from shardwave.bench.search_quality.curves import FOLDS, Table
from shardwave.bench.search_quality.folds import FoldSteps
from shardwave.bench.search_quality.replay import Search, replay_one
from shardwave.bench.search_quality.starts import starts_of_others
from shardwave.common.errors import UsageError
from shardwave.search.budget import SearchBudget

STAGE = "search-quality"
BASELINE = "random/random/none"
BUDGETS = (0.5, 1, 2, 3, 5, 7, 10, 14, 20, 30, 50)  # full trainings at which the regret is recorded
WORKERS = (1, 4, 16)
TRIALS = 20  # of the searches with a fixed number of trials
LONG = 50  # full trainings of the long searches: the first number of workers, `strategies.LONG`
SEEDS = 30
QUICK: dict[str, Any] = {"seeds": 5, "workers": (1,), "trainings": 10}


Searches = dict[str, list[Search]]  # by strategy, one per seed


class Replayed(TypedDict):
    """Paths of the results of `replay`, and the number of searches."""

    records: str
    report: str
    searches: int
    tables: list[str]


class Task(NamedTuple):
    """One search to replay.

    Attributes:
        table: Number of the table.
        strategy: Name of the strategy.
        workers: Number of simulated workers.
        seed: Seed of the search.
        trials: Number of trials, with epochs without limit; None: as many as the epochs allow.
        trainings: Budget in full trainings without `trials`; None: that of `setup`.
    """

    table: int
    strategy: str
    workers: int
    seed: int
    trials: int | None = None
    trainings: int | None = None


def setup(paths: tuple[str, ...], trainings: int) -> Callable[[Task], Search]:
    """Return the job of a worker process, which replays one search.

    Args:
        paths: Tables.
        trainings: Budget of a search in full trainings.
    """
    tables = [curves.read(Path(path)) for path in paths]

    @functools.cache
    def recorded() -> list[Table]:
        return [curves.read(path) for path in sorted(curves.FOLDER.glob("*.npz"))]

    def work(task: Task) -> Search:
        table, space = tables[task.table], tables[task.table].space
        if strategies.has_starts(task.strategy):
            space = space.with_starts(starts_of_others(table, recorded(), task.seed))
        by_folds = task.strategy == strategies.WILCOXON
        steps = FOLDS if by_folds else table.epochs  # of a training
        wanted = task.trials or task.trainings or trainings
        # one trial per step: then steps limit the search, and trials do not
        limits = SearchBudget(trials=task.trials or wanted * steps, epochs=steps, jobs=task.workers)
        driver = strategies.make_driver(task.strategy, space, limits, task.seed, wanted)
        rows = FoldSteps(table) if by_folds else table
        search = replay_one(rows, driver, task.workers, steps, wanted * steps)
        in_epochs = [step._replace(epochs=step.epochs * table.epochs // steps) for step in search.steps]
        return search._replace(steps=in_epochs)

    return work


def replay(
    out: Path | str,
    tables: Sequence[Path | str] = (),
    workers: Sequence[int] = WORKERS,
    seeds: int = SEEDS,
    trainings: int = measures.TARGET,
    only: Sequence[str] = (),
) -> Replayed:
    """Replay strategies on recorded learning curves, and write records and a report.

    The repeats of a record are the normalised regrets by seed at the end of the searches (0: best of the
    table, 1: median of the first trial of a random search). The random search without pruning is always
    replayed: it sets the target of the speed-ups.

    Args:
        out: New folder of the results.
        tables: Tables of learning curves, or run folders of searches; empty: the tables of the project.
        workers: Numbers of simulated workers, compared separately. Without `only`, more than one worker is
            simulated for `strategies.SELECTED` alone.
        seeds: Searches per strategy, seeds 0 to seeds - 1.
        trainings: Budget of a search in full trainings.
        only: Texts, one of which the names of the strategies contain.

    Returns:
        Paths of the records, of the report and of the tables, and the number of searches.

    Raises:
        UsageError: An option is invalid, or `out` holds records.
    """
    from shardwave.bench.harness.pool import Pool
    from shardwave.bench.report.page import write
    from shardwave.common.environment import cores
    from shardwave.common.progress import bar

    out = Path(out)
    for number, name in (
        (seeds, "--seeds"),
        (trainings, "--trainings"),
        *((count, "--workers") for count in workers),
    ):
        if number < 1:
            raise UsageError(f"{name} must be 1 or more, got {number}")
    paths = [Path(path) for path in tables] or sorted(curves.FOLDER.glob("*.npz"))
    opened = [curves.read(path) for path in paths]
    chosen = [
        name
        for name in _chosen(only)
        if name != strategies.WILCOXON or all(table.rows[0].folds for table in opened)
    ]
    if (out / "records.jsonl").exists():
        raise UsageError(f"--out {out} holds bench records already: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    tasks = tasks_of(chosen, len(paths), workers, seeds, trainings, bool(only))
    pool = Pool(cores())
    try:
        found: dict[tuple[int, int], Searches] = {}
        fixed: dict[int, Searches] = {}  # searches of TRIALS trials, by table
        long: dict[int, Searches] = {}  # searches with LONG trainings, by table
        with bar(total=len(tasks), desc="searches replayed", unit="replay") as progress:
            results = pool.map(tasks, setup, tuple(map(str, paths)), trainings)
            for task, search in zip(tasks, results, strict=True):
                if task.trials or task.trainings:
                    searches = (fixed if task.trials else long).setdefault(task.table, {})
                else:
                    searches = found.setdefault((task.table, task.workers), {})
                searches.setdefault(task.strategy, []).append(search)
                progress.update()
        for (number, count), searches in found.items():
            first = count == workers[0]
            few, more = (fixed[number], long.get(number, {})) if first else ({}, {})
            for record in records(opened[number], count, trainings, searches, few, more):
                append(out / "records.jsonl", record)
    finally:
        pool.close()
    write([out], out / "report.html")
    return {
        "records": str(out / "records.jsonl"),
        "report": str(out / "report.html"),
        "searches": len(tasks),
        "tables": [str(path) for path in paths],
    }


def _chosen(only: Sequence[str]) -> list[str]:
    """Return the names of the strategies that contain one of the texts, and the baseline.

    Without texts, those that `strategies.left_out` names are left out.
    """
    available = strategies.names()
    chosen = [
        name
        for name in available
        if (any(text in name for text in only) if only else not strategies.left_out(name))
    ]
    if not chosen:
        raise UsageError(f"--only {', '.join(only)} matches no strategy; strategies: {', '.join(available)}")
    return chosen if BASELINE in chosen else [*chosen, BASELINE]


def tasks_of(
    names: Sequence[str], tables: int, workers: Sequence[int], seeds: int, trainings: int, named: bool
) -> list[Task]:
    """Return the searches to replay.

    Args:
        names: Strategies.
        tables: Number of tables.
        workers: Numbers of simulated workers; with the first, there are also searches of TRIALS trials and,
            if `trainings` is the usual budget, searches with LONG trainings.
        seeds: Searches per strategy.
        trainings: Budget in full trainings.
        named: Whether the user named the strategies: then all are replayed with several workers.
    """
    tasks = []
    for number, count in itertools.product(range(tables), workers):
        for name in names:
            some = strategies.selected(name)
            budgets: list[tuple[int | None, int | None]] = []
            if named or count == 1 or some or name == BASELINE:
                budgets.append((None, None))
            if count == workers[0]:
                budgets.append((TRIALS, None))
            if count == workers[0] and name in strategies.LONG and trainings == measures.TARGET:
                budgets.append((None, LONG))
            tasks += [Task(number, name, count, seed, *budget) for budget in budgets for seed in range(seeds)]
    return tasks


def records(
    table: Table, workers: int, trainings: int, searches: Searches, fixed: Searches, long: Searches
) -> list[Record]:
    """Return one record per strategy.

    Args:
        table: The table.
        workers: Number of simulated workers.
        trainings: Budget in full trainings.
        searches: Searches with as many epochs as `trainings` full trainings, with those of the baseline.
        fixed: Searches of TRIALS trials; empty: there are none.
        long: Searches with LONG trainings, whose regrets at budgets above `trainings` are recorded; empty:
            there are none.
    """
    scale = measures.scale_of(table)
    baseline, budget = searches[BASELINE], trainings * table.epochs
    regrets = {
        name: [scale.regret(measures.value_at(search, budget)) for search in runs]
        for name, runs in searches.items()
    }
    ranks = dict(zip(searches, rankdata(list(regrets.values()), axis=0).mean(axis=1).tolist(), strict=True))
    rows = []
    for name, runs in searches.items():
        params: dict[str, Any] = {
            "table": table.name, "configurations": len(table.rows), "workers": workers,
            "epochs": table.epochs, "trainings": trainings, "rank": round(ranks[name], 2),
            "scale": {key: round(value, 4) for key, value in scale._asdict().items()},
            "regret": [
                [point, *_rounded(_regret_interval(scale, source, point * table.epochs))]
                for point in BUDGETS
                if (source := runs if point <= trainings else long.get(name))
            ],
            "test": _rounded(measures.interval([measures.test_at(run, budget) for run in runs], np.mean)),
            "speed_up": _rounded(measures.speed_up(runs, baseline, budget)),
            "speed_up_seconds": _rounded(measures.speed_up(runs, baseline, budget, "seconds")),
            "trials": statistics.median(search.trials for search in runs),
            "ask_ms": round(1e3 * statistics.median(run.ask_seconds / run.trials for run in runs), 2),
            "seconds": round(statistics.median(search.steps[-1].seconds for search in runs), 2),
            "beaten_by": measures.beaten_by(name, regrets),
        }  # fmt: skip
        if name in fixed:
            ends = [search.steps[-1] for search in fixed[name]]
            params["fixed"] = {
                "trials": TRIALS,
                "regret": _rounded(measures.interval([scale.regret(end.best) for end in ends], np.mean)),
                "test": _rounded(measures.interval([end.test for end in ends], np.mean)),
                "trainings": round(statistics.mean(end.epochs for end in ends) / table.epochs, 2),
            }
        role = "baseline" if name == BASELINE else "peer" if strategies.is_peer(name) else "ours"
        case = f"{table.name}, {workers} workers: {strategies.label(name)}"
        rows.append(Record(STAGE, case, role, "regret", regrets[name], params))
    return rows


def _regret_interval(scale: measures.Scale, runs: Sequence[Search], epochs: float) -> measures.Interval:
    """Return the median regret after a number of epochs; at most 9 before the first epoch has ended."""
    return measures.interval([min(9.0, scale.regret(measures.value_at(run, epochs))) for run in runs])


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values]
