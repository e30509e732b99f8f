"""Comparison of searches by their run folders: value over time and epochs, cost, overhead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from shardwave.common.errors import UsageError
from shardwave.models.runs.records import BestTrial, Epochs
from shardwave.models.runs.result import read
from shardwave.search.trial import Trial, best_so_far
from shardwave.search.trial_log import read_trials


class ComparedSearch(TypedDict):
    """Row of `compare`."""

    run: str
    model: str
    backend: str
    sampler: str | None
    scheduler: str | None
    jobs: int | None
    state: str
    best: BestTrial | None
    epochs: Epochs
    trials: int
    seconds: float
    seconds_per_trial: float
    overhead: float
    overhead_per_trial: float
    seconds_to_best: float | None
    steps: list[list[float]]


def compare(folders: Sequence[Path | str]) -> list[ComparedSearch]:
    """Compare searches.

    Args:
        folders: Run folders of searches.

    Returns:
        A row per search, in the same order. `seconds`, `overhead` and their quotients per trial are wall
        times; `seconds_to_best` counts from the start of the first trial; `steps` holds [seconds, epochs of
        all trials, best value] after every epoch.

    Raises:
        UsageError: If a folder contains a run of another command.
    """
    rows: list[ComparedSearch] = []
    for folder in map(Path, folders):
        result = read(folder)
        if result["command"] != "search":
            raise UsageError(f"{folder} contains a run of `{result['command']}`: use folders of `search`")
        trials = read_trials(folder)
        steps, seconds = best_so_far(trials), result["seconds"]
        rows.append(
            {
                "run": folder.name,
                "model": result["model"],
                "backend": result["backend"],
                "sampler": result["sampler"],
                "scheduler": result["scheduler"],
                "jobs": result["jobs"],
                "state": result["state"],
                "best": result["best"],
                "epochs": result["epochs"],
                "trials": len(trials),
                "seconds": seconds["total"],
                "seconds_per_trial": seconds["total"] / max(1, len(trials)),
                "overhead": seconds["overhead"],
                "overhead_per_trial": seconds["overhead"] / max(1, len(trials)),
                "seconds_to_best": _seconds_to_best(steps, trials),
                "steps": [list(step) for step in steps],
            }
        )
    return rows


def _seconds_to_best(steps: Sequence[tuple[float, int, float]], trials: Sequence[Trial]) -> float | None:
    """Return the seconds from the start of the first trial to the best value; None without values."""
    best = max((value for trial in trials for value in trial.values), default=None)
    return next((seconds for seconds, _, value in steps if value == best), None)
