"""Strategies for replays: the samplers and schedulers of each backend as drivers, and two baselines.

Optuna is driven by the driver of our backend. Ray's scheduler and searcher are the objects that our backend
passes to Tune; here the event loop of the replay calls them instead of Tune, so reports label them "ray
objects".
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Protocol

from shardwave.bench.search_quality.folds import WilcoxonFolds
from shardwave.bench.search_quality.ray_objects import RayHyperBand, RayObjects
from shardwave.common.errors import UsageError
from shardwave.models.training.config import WARM_UP
from shardwave.search.auto import choose
from shardwave.search.backends.random import PointsDriver
from shardwave.search.backends.syne_tune import SyneTuneDriver
from shardwave.search.budget import AUTO, BACKENDS, SAMPLERS, SCHEDULERS, SearchBudget, grace_after
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, Trial
from shardwave.search.trial_log import TrialLog

# packages of strategies, by the beginning of their names
OPTIONAL = {"syne-tune/": "syne_tune", "ray/bohb/": "hpbandster"}
WILCOXON = "optuna/tpe/wilcoxon"
RAY_HYPERBAND = ("ray/random/hyperband", "ray/bohb/hyperband")
BASELINES = ("random/random/none", "baseline/random/one epoch for all, then the best to the end")

VARIANTS = (
    "optuna/auto/auto",
    "optuna/random/asha+grace:auto",
    "optuna/qmc/asha+grace:auto",
    "optuna/tpe/asha+first:default",
    "optuna/tpe/asha+reduction:2",
    "optuna/tpe/asha+reduction:4",
    "optuna/tpe/asha+grace:5",
    "optuna/tpe/asha+grace:auto",
    "optuna/tpe/asha+grace:auto+first:default",
    "optuna/tpe/asha+grace:auto+reduction:2",
    "optuna/tpe/asha+grace:auto+first:recorded",
    "optuna/tpe/asha+grace:5+first:recorded",
    "optuna/tpe/none+first:recorded",
    "optuna/random/asha+grace:auto+first:recorded",
    "optuna/tpe/asha+grace:auto+reduction:2+first:default",
    "optuna/tpe/asha+grace:auto+reduction:4+first:default",
    "optuna/tpe/median+grace:auto+first:default",
    "optuna/priorband/asha+grace:auto+first:default",
    "optuna/priorband/hyperband+first:default",
    "ray/random/asha+grace:auto",
    "ray/tpe/asha+grace:auto+first:default",
    "syne-tune/kde/asha+grace:auto",
    "syne-tune/bore/asha+grace:auto",
    "syne-tune/cqr/asha+grace:auto",
    *RAY_HYPERBAND,
    WILCOXON,
)
SELECTED = (
    *BASELINES,
    "optuna/auto/auto",
    "optuna/random/asha",
    "optuna/tpe/none",
    "optuna/tpe/median",
    "optuna/tpe/hyperband",
    "optuna/tpe/asha",
    "optuna/tpe/asha+grace:auto",
    "optuna/tpe/asha+grace:auto+first:default",
    "optuna/tpe/asha+grace:auto+first:recorded",
    "optuna/tpe/asha+grace:auto+reduction:2+first:default",
    "optuna/priorband/asha+grace:auto+first:default",
    "ray/random/asha",
    "ray/random/asha+grace:auto",
    "ray/tpe/asha",
)
# replayed with 50 trainings too; with hundreds of trials, models and pruners take seconds a search
LONG = (
    "random/random/none",
    "optuna/tpe/none",
    "optuna/tpe/asha+grace:auto",
    "optuna/tpe/asha+grace:auto+first:default",
    "optuna/tpe/asha+grace:auto+first:recorded",
    "ray/random/asha",
    "ray/random/asha+grace:auto",
)


class Driver(Protocol):
    """Protocol of a strategy, the same as `shardwave.search.workers.pool.Driver`."""

    def ask(self) -> Assignment | None:
        """Return the next trial, or None if there is none now."""

    def report(self, trial: Trial) -> bool:
        """Process the last value of a trial, and return whether to stop the trial."""

    def end(self, trial: Trial) -> None:
        """Process the end of a trial."""


def names() -> list[str]:
    """Return the names of all strategies whose packages are installed, see `make_driver`."""
    strategies = [
        f"{backend}/{sampler}/{scheduler}"
        for backend in BACKENDS
        for sampler in SAMPLERS[backend]
        for scheduler in SCHEDULERS[backend]
    ]
    missing = tuple(
        prefix for prefix, package in OPTIONAL.items() if importlib.util.find_spec(package) is None
    )
    return [name for name in (*strategies, *VARIANTS, BASELINES[1]) if not name.startswith(missing)]


def selected(name: str) -> bool:
    """Return whether a strategy is replayed with more than one worker unless it is named."""
    return name in SELECTED


def left_out(name: str) -> bool:
    """Return whether a strategy is replayed only if it is named.

    On spaces with numbers, grids are random searches. The Gaussian process takes minutes for a search with
    the median rule, which completes hundreds of trials. Variants of samplers are replayed with successive
    halving and without a scheduler. Conformal quantile regression and BORE take 0.3 s and 0.1 s per decision.
    """
    backend, sampler, scheduler = name.split("/")
    few = sampler in ("gp", "cmaes", "qmc", "tpe-univariate") and scheduler in ("median", "hyperband")
    learns = backend == "syne-tune" and sampler != "random" and "+" not in name
    return sampler in ("grid", "cqr", "bore") or few or learns


def has_starts(name: str) -> bool:
    """Return whether a strategy uses the starts of the space."""
    return AUTO in name.split("+")[0].split("/") or "first:recorded" in name


def is_peer(name: str) -> bool:
    """Return whether another program's parts make all decisions of a strategy."""
    return name.startswith(("ray/", "syne-tune/")) or name in BASELINES


def label(name: str) -> str:
    """Return the name of a strategy in reports."""
    return name.replace("ray/", "ray objects/", 1) if name.startswith("ray/") else name


def make_driver(
    name: str, space: Space, budget: SearchBudget, seed: int, trials: int | None = None
) -> Driver:
    """Return the driver of a strategy.

    Args:
        name: `backend/sampler/scheduler`, and then any of `+grace:EPOCHS` or `+grace:auto`,
            `+reduction:FACTOR`, `+first:default` or `+first:recorded`, as in `optuna/tpe/asha+grace:auto`.
            `auto` as the sampler or the scheduler is what `shardwave.search.auto.choose` returns, with the
            first trials that `auto` chooses.
        space: Search space, with the prior and the starts for the first trials.
        budget: Trials, epochs and jobs.
        seed: Seed of the search.
        trials: Number of trials that `auto` assumes; None: that of `budget`.

    Raises:
        UsageError: The name is not that of a strategy.
    """
    kind, *settings = name.split("+")
    backend, sampler, scheduler = kind.split("/")
    if backend == "baseline":
        return BestOfFirstEpoch(space, budget, seed)
    if AUTO in (sampler, scheduler):
        asked = dataclasses.replace(budget, trials=trials or budget.trials)
        chosen = choose(space, asked, budget.jobs or 1, backend, WARM_UP)
        sampler = chosen.sampler if sampler == AUTO else sampler
        settings = [f"first:{chosen.first_trial}", *settings]
        if scheduler == AUTO:
            scheduler = chosen.scheduler
            settings = [f"grace:{chosen.grace_period}", f"reduction:{chosen.reduction_factor}", *settings]
    for setting in settings:
        budget = _with(budget, setting)
    if kind == WILCOXON:
        return WilcoxonFolds(space, dataclasses.replace(budget, sampler=sampler), seed)
    if kind in RAY_HYPERBAND:
        return RayHyperBand(space, budget.resolve(backend), seed, sampler == "bohb")
    budget = dataclasses.replace(budget, sampler=sampler, scheduler=scheduler).resolve(backend)
    if backend == "optuna":
        from shardwave.search.backends.optuna.backend import StudyDriver

        return StudyDriver(None, "replay", space, budget, seed, TrialLog(), {})
    if backend == "ray":
        return RayObjects(space, budget, seed)
    if backend == "syne-tune":
        return SyneTuneDriver(space, budget, seed, TrialLog())
    return LoggedPoints(space, budget, seed, TrialLog())


def _with(budget: SearchBudget, setting: str) -> SearchBudget:
    """Return the budget with a setting of the name of a strategy."""
    key, _, value = setting.partition(":")
    if key == "grace" and value == "auto":
        return dataclasses.replace(budget, grace_period=grace_after(WARM_UP, budget.epochs))
    if key == "grace" and value.isdigit():
        return dataclasses.replace(budget, grace_period=min(int(value), budget.epochs))
    if key == "reduction" and value.isdigit():
        return dataclasses.replace(budget, reduction_factor=int(value))
    if key == "first":
        return dataclasses.replace(budget, first_trial=value)
    raise UsageError(
        f"a strategy takes +grace:EPOCHS, +grace:auto, +reduction:FACTOR and +first:KIND, got +{setting}"
    )


class LoggedPoints(PointsDriver):
    """Driver of our random backend that also writes the log of trials, which the median rule reads."""

    def report(self, trial: Trial) -> bool:
        """Log the trial, and return whether to stop it."""
        self._log.running[trial.trial] = trial
        return super().report(trial)

    def end(self, trial: Trial) -> None:
        """Log the end of the trial."""
        self._log.finished[trial.trial] = self._log.running.pop(trial.trial)


class BestOfFirstEpoch:
    """Baseline: spends half of the epochs on first epochs of random points, the rest on the best points."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        total = budget.trials  # the replay sets as many trials as epochs
        self._points = [Assignment(number, space.point(number, seed)) for number in range(max(1, total // 2))]
        self._best = max(1, (total - len(self._points)) // max(1, budget.epochs - 1))
        self._waiting = list(reversed(self._points))
        self._first: dict[int, float] = {}
        self._chosen = False

    def ask(self) -> Assignment | None:
        """Return the next point, or None until all first epochs have ended."""
        if not self._waiting and not self._chosen and len(self._first) == len(self._points):
            ranked = sorted(self._first, key=lambda number: (self._first[number], -number))
            self._waiting = [self._points[number] for number in ranked[-self._best :]]
            self._chosen = True
        return self._waiting.pop() if self._waiting else None

    def report(self, trial: Trial) -> bool:
        """Return True after the first epoch."""
        if trial.epochs == 1:
            self._first[trial.trial] = trial.values[0]
            return True
        return False

    def end(self, trial: Trial) -> None:
        """Do nothing."""
