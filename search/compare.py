"""Searches side by side: value over time and over epochs, epochs, overhead. Reads run folders; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.models.runs.result import read
from shardwave.search.trial import Trial, best_so_far
from shardwave.search.trial_log import read_trials


def compare(folders: Sequence[Path | str]) -> list[dict[str, Any]]:
    """One row per search, in the order given; `steps` holds [seconds, epochs spent, best value] after every epoch.

    `overhead_per_trial` and `seconds_per_trial` are wall seconds; `seconds_to_best` counts from the first trial's start.
    """
    rows = []
    for folder in map(Path, folders):
        result = read(folder)
        if result["command"] != "search":
            raise UsageError(f"{folder} holds a run of `{result['command']}`: only searches can be compared")
        trials = read_trials(folder)
        steps, seconds = best_so_far(trials), result["seconds"]
        rows.append(
            {
                "run": folder.name,
                **{
                    name: result[name] for name in ("model", "backend", "sampler", "scheduler", "jobs", "state", "best", "epochs")
                },
                "trials": len(trials),
                "seconds": seconds["total"],
                "seconds_per_trial": seconds["total"] / max(1, len(trials)),
                "overhead": seconds["overhead"],
                "overhead_per_trial": seconds["overhead"] / max(1, len(trials)),
                "seconds_to_best": _reached(steps, trials),
                "steps": [list(step) for step in steps],
            }
        )
    return rows


def _reached(steps: Sequence[tuple[float, int, float]], trials: Sequence[Trial]) -> float | None:
    """When the best value was first reached, in seconds since the first trial's start."""
    best = max((value for trial in trials for value in trial.values), default=None)
    return next((seconds for seconds, _, value in steps if value == best), None)
