"""What is compared on recorded curves: each backend's own samplers and schedulers as drivers, and two simple baselines.

A driver hands out trials (`ask`), sees every value (`report`, True stops the trial) and every end (`end`). Optuna decides
through the driver that our backend uses. Ray's scheduler and searcher objects are the very ones our backend hands to Tune; here
the replay's event loop calls them in Tune's place, which is why they are labelled "ray objects".
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from shardwave.search.backends.random import PointsDriver
from shardwave.search.budget import SAMPLERS, SCHEDULERS, SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, Trial
from shardwave.search.trial_log import TrialLog

BASELINES = ("random/random/none", "baseline/random/one epoch for all, then the best to the end")


class Driver(Protocol):
    """What the event loop needs of a search; `shardwave.search.workers.pool.Driver`s have it."""

    def ask(self) -> Assignment | None:
        """The next trial, or None when there is none now."""

    def report(self, trial: Trial) -> bool:
        """A trial has a new value (its last); True stops it."""

    def end(self, trial: Trial) -> None:
        """A trial has ended, its state set."""


def names() -> list[str]:
    """`backend/sampler/scheduler` of everything there is, baselines last."""
    made = [
        f"{backend}/{sampler}/{scheduler}"
        for backend in ("optuna", "ray", "random")
        for sampler in SAMPLERS[backend]
        for scheduler in SCHEDULERS[backend]
    ]
    return [*made, BASELINES[1]]


def label(name: str) -> str:
    """How a report calls a strategy."""
    return name.replace("ray/", "ray objects/", 1) if name.startswith("ray/") else name


def make_driver(name: str, space: Space, budget: SearchBudget, seed: int) -> Driver:
    """The driver of a strategy; `budget.sampler` and `.scheduler` are set from its name."""
    backend, sampler, scheduler = name.split("/")
    if backend == "baseline":
        return BestOfFirstEpoch(space, budget, seed)
    budget = dataclasses.replace(budget, sampler=sampler, scheduler=scheduler).resolve(backend)
    if backend == "optuna":
        from shardwave.search.backends.optuna.backend import StudyDriver

        return StudyDriver(None, "replay", space, budget, seed, TrialLog(), {})
    if backend == "ray":
        return RayObjects(space, budget, seed)
    return LoggedPoints(space, budget, seed, TrialLog())


class LoggedPoints(PointsDriver):
    """Our random backend's driver, which keeps the log in which its median rule looks up the other trials."""

    def report(self, trial: Trial) -> bool:
        self._log.running[trial.trial] = trial
        return super().report(trial)

    def end(self, trial: Trial) -> None:
        self._log.finished[trial.trial] = self._log.running.pop(trial.trial)


class RayObjects:
    """Ray's scheduler and searcher as our backend builds them for Tune, called in the order in which Tune calls them."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        from shardwave.search.backends.ray.backend import ray_module

        ray_module()
        from ray.tune.schedulers import TrialScheduler

        from shardwave.search.backends.ray.parts import make_searcher, scheduler

        self._searcher: Any = make_searcher(space, budget, seed, TrialLog())
        self._scheduler: Any = scheduler(budget, TrialLog())
        self._stop = TrialScheduler.STOP
        self._epochs = budget.epochs
        self._live: dict[int, RayTrial] = {}

    def ask(self) -> Assignment | None:
        trial_id = f"t{len(self._live)}"
        config = self._searcher.suggest(trial_id)
        if not isinstance(config, dict):  # None: not now; FINISHED: never again
            return None
        self._live[config["trial"]] = RayTrial(trial_id)
        self._scheduler.on_trial_add(self, self._live[config["trial"]])
        return Assignment(config["trial"], config["params"], config["attempt"])

    def report(self, trial: Trial) -> bool:
        live, last = self._live[trial.trial], trial.epochs >= self._epochs
        live.result = {
            "epoch": trial.epochs,
            "value": trial.values[-1],
            "training_iteration": trial.epochs,
            "trial_id": live.trial_id,
        }
        if last:  # our actors say `done` with their last epoch: Tune then asks nobody whether to stop
            return False
        stop = self._scheduler.on_trial_result(self, live, live.result) == self._stop
        if not stop:
            self._searcher.on_trial_result(live.trial_id, live.result)
        return stop

    def end(self, trial: Trial) -> None:
        live = self._live[trial.trial]
        if trial.state == "COMPLETE":
            live.result["state"] = trial.state
        self._scheduler.on_trial_complete(self, live, live.result)
        self._searcher.on_trial_complete(live.trial_id, live.result)
        live.status = "TERMINATED"

    def get_live_trials(self) -> list[RayTrial]:
        """What schedulers ask Tune's controller for."""
        return [live for live in self._live.values() if live.status == "RUNNING"]


class RayTrial:
    """What Ray's schedulers need of a trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.status = "RUNNING"
        self.result: dict[str, Any] = {}


class BestOfFirstEpoch:
    """One epoch for every random point, then the best of them to the end: half of the epochs for each of the two steps."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        total = budget.trials  # the caller offers as many trials as there are epochs to spend
        self._points = [Assignment(number, space.point(number, seed)) for number in range(max(1, total // 2))]
        self._best = max(1, (total - len(self._points)) // max(1, budget.epochs - 1))
        self._waiting = list(reversed(self._points))
        self._first: dict[int, float] = {}
        self._chosen = False

    def ask(self) -> Assignment | None:
        if not self._waiting and not self._chosen and len(self._first) == len(self._points):
            ranked = sorted(self._first, key=lambda number: (self._first[number], -number))
            self._waiting = [self._points[number] for number in ranked[-self._best :]]
            self._chosen = True
        return self._waiting.pop() if self._waiting else None

    def report(self, trial: Trial) -> bool:
        if trial.epochs == 1:
            self._first[trial.trial] = trial.values[0]
            return True
        return False

    def end(self, trial: Trial) -> None:
        pass
