"""Strategies for replays: the samplers and schedulers of each backend as drivers, and two baselines.

Optuna is driven by the driver of our backend. Ray's scheduler and searcher are the objects that our backend
passes to Tune; here the event loop of the replay calls them instead of Tune, so reports label them "ray
objects".
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING, Any, Protocol

from shardwave.common.errors import UsageError
from shardwave.models.training.config import WARM_UP
from shardwave.search.auto import choose
from shardwave.search.backends.random import PointsDriver
from shardwave.search.backends.syne_tune import SyneTuneDriver
from shardwave.search.budget import AUTO, BACKENDS, SAMPLERS, SCHEDULERS, SearchBudget, grace_after
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, Trial
from shardwave.search.trial_log import TrialLog

if TYPE_CHECKING:
    from shardwave.search.backends.ray.actor import TuneResult

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
    "optuna/tpe/asha+grace:auto+reduction:2+first:default",
    "optuna/tpe/asha+grace:auto+reduction:4+first:default",
    "optuna/tpe/median+grace:auto+first:default",
    "optuna/priorband/asha+grace:auto+first:default",
    "optuna/priorband/hyperband+first:default",
    "ray/random/asha+grace:auto",
    "ray/tpe/asha+grace:auto+first:default",
)
SELECTED = (
    *BASELINES,
    "optuna/auto/auto",
    "optuna/random/asha",
    "optuna/tpe/none",
    "optuna/tpe/median",
    "optuna/tpe/hyperband",
    "optuna/tpe/asha",
    "optuna/tpe/asha+grace:auto+first:default",
    "optuna/tpe/asha+grace:auto+reduction:2+first:default",
    "optuna/priorband/asha+grace:auto+first:default",
    "ray/random/asha",
    "ray/tpe/asha",
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
    """Return the names of all strategies, see `make_driver`; those of Syne Tune if it is installed."""
    strategies = [
        f"{backend}/{sampler}/{scheduler}"
        for backend in BACKENDS
        if backend != "syne-tune" or importlib.util.find_spec("syne_tune")
        for sampler in SAMPLERS[backend]
        for scheduler in SCHEDULERS[backend]
    ]
    return [*strategies, *VARIANTS, BASELINES[1]]


def selected(name: str) -> bool:
    """Return whether a strategy is replayed with more than one worker unless it is named."""
    return name in SELECTED


def left_out(name: str) -> bool:
    """Return whether a strategy is replayed only if it is named.

    On spaces with numbers, grids are random searches. The Gaussian process takes minutes for a search with
    the median rule, which completes hundreds of trials. Variants of samplers are replayed with successive
    halving and without a scheduler.
    """
    backend, sampler, scheduler = name.split("/")
    few = sampler in ("gp", "cmaes", "qmc", "tpe-univariate") and scheduler in ("median", "hyperband")
    return sampler == "grid" or few or (backend == "syne-tune" and sampler != "random")


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
            `+reduction:FACTOR`, `+first:default`, as in `optuna/tpe/asha+grace:auto`. `auto` as the sampler
            or the scheduler is what `shardwave.search.auto.choose` returns.
        space: Search space; its prior is the first trial of `first:default`.
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
        if scheduler == AUTO:
            scheduler = chosen.scheduler
            settings = [f"grace:{chosen.grace_period}", f"reduction:{chosen.reduction_factor}", *settings]
    for setting in settings:
        budget = _with(budget, setting)
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
        f"a strategy takes +grace:EPOCHS, +grace:auto, +reduction:FACTOR and +first:default, got +{setting}"
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


class RayObjects:
    """Driver of Ray's scheduler and searcher, which calls them in the order in which Tune calls them."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        from shardwave.search.backends.ray.backend import ray_module

        ray_module()
        from ray.tune.schedulers import TrialScheduler

        from shardwave.search.backends.ray.parts import make_scheduler, make_searcher

        self._searcher: Any = make_searcher(space, budget, seed, TrialLog())
        self._scheduler: Any = make_scheduler(budget, TrialLog())
        self._stop = TrialScheduler.STOP
        self._epochs = budget.epochs
        self._live: dict[int, RayTrial] = {}

    def ask(self) -> Assignment | None:
        """Return the next trial of the searcher, or None."""
        trial_id = f"t{len(self._live)}"
        config = self._searcher.suggest(trial_id)
        if not isinstance(config, dict):  # None: no trial now; FINISHED: no further trial
            return None
        self._live[config["trial"]] = RayTrial(trial_id)
        self._scheduler.on_trial_add(self, self._live[config["trial"]])
        return Assignment(config["trial"], config["params"], config["attempt"])

    def report(self, trial: Trial) -> bool:
        """Pass the value to the scheduler and the searcher, and return whether to stop the trial."""
        live, last = self._live[trial.trial], trial.epochs >= self._epochs
        live.result = {
            "epoch": trial.epochs,
            "value": trial.values[-1],
            "training_iteration": trial.epochs,
            "trial_id": live.trial_id,
        }
        if last:  # our actors report `done` with the last epoch, and Tune then does not ask the scheduler
            return False
        stop = self._scheduler.on_trial_result(self, live, live.result) == self._stop
        if not stop:
            self._searcher.on_trial_result(live.trial_id, live.result)
        return stop

    def end(self, trial: Trial) -> None:
        """Pass the end of the trial to the scheduler and the searcher."""
        live = self._live[trial.trial]
        if trial.state == "COMPLETE":
            live.result["state"] = trial.state
        self._scheduler.on_trial_complete(self, live, live.result)
        self._searcher.on_trial_complete(live.trial_id, live.result)
        live.status = "TERMINATED"

    def get_live_trials(self) -> list[RayTrial]:
        """Return the running trials; schedulers call this method of Tune's controller."""
        return [live for live in self._live.values() if live.status == "RUNNING"]


class RayTrial:
    """Fields of Tune's trials that schedulers use."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.status = "RUNNING"
        self.result: TuneResult = {}


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
