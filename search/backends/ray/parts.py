"""Our search terms in Ray Tune's: schedulers, searchers, and the callback that keeps the record."""

from __future__ import annotations

import dataclasses
import math
import time
import types
from typing import Any, cast

import ray
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from shardwave.common.errors import ShardwaveError
from shardwave.search.backends.optuna.parts import distributions
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import MAX_ATTEMPTS, Assignment, Trial, final_state
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers.worker import describe

MEDIAN_TRIALS = 3
PATIENCE = 120.0  # seconds in which no trial runs, after which Ray on this machine is taken for broken


def scheduler(budget: SearchBudget, log: TrialLog) -> TrialScheduler:
    """The scheduler that the budget names, told of every recorded trial's values.

    Epochs are our own (`time_attr="epoch"`): Tune's training_iteration starts over with a retried trial.
    """
    if budget.scheduler == "none":
        return FIFOScheduler()
    made: TrialScheduler
    if budget.scheduler == "asha":
        made = ASHAScheduler(
            time_attr="epoch",
            metric="value",
            mode="max",
            max_t=budget.epochs,
            grace_period=budget.grace,
            reduction_factor=budget.reduction,
        )
    else:
        made = MedianStoppingRule(
            time_attr="epoch",
            metric="value",
            mode="max",
            grace_period=budget.grace,
            min_samples_required=MEDIAN_TRIALS,
            min_time_slice=cast(Any, math.inf),  # never pause for want of samples: that needs checkpoints
        )
    for recorded in log.trials:
        _replay(made, recorded)
    return made


@dataclasses.dataclass(eq=False)  # median stopping keys its tables by trial: hashable by identity, unlike a SimpleNamespace
class _Recorded:
    trial_id: str
    status: str = "RUNNING"


def _replay(made: TrialScheduler, recorded: Trial) -> None:
    """Tell a scheduler a trial of an earlier run, as it was told then: this rebuilds its rungs (Ray does not save them)."""
    trial = cast(Any, _Recorded(f"recorded-{recorded.trial}"))
    controller = cast(Any, types.SimpleNamespace(get_live_trials=list))
    made.on_trial_add(controller, trial)
    result: dict[str, Any] = {}
    for epoch, value in enumerate(recorded.values, 1):
        result = {"epoch": epoch, "value": value}
        made.on_trial_result(controller, trial, result)
    if recorded.state == "FAILED":
        made.on_trial_error(controller, trial)
    else:
        made.on_trial_complete(controller, trial, result)


class AssignmentSearcher(Searcher):
    """Numbers the trials: lost ones first, then every number that no record holds, each with the parameters of `_params`."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> None:
        super().__init__(metric="value", mode="max")
        self._space, self._budget, self._seed = space, budget, seed
        self._lost = [lost for lost in log.lost() if lost.trial < budget.trials]
        known = log.finished.keys() | {lost.trial for lost in self._lost}
        self._numbers = [number for number in range(budget.trials) if number not in known]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next assignment, as Tune's configuration of the trial."""
        if self._lost:
            lost = self._lost.pop(0)
            return self._config(self._adopt(trial_id, lost))
        if not self._numbers:
            return cast(Any, Searcher.FINISHED)
        number = self._numbers.pop(0)
        return self._config(Assignment(number, self._params(trial_id, number)))

    def _params(self, trial_id: str, number: int) -> dict[str, Any]:
        return self._space.point(number, self._seed, shuffle=self._budget.sampler == "random")

    def _adopt(self, trial_id: str, lost: Assignment) -> Assignment:
        return lost

    def _config(self, assignment: Assignment) -> dict[str, Any]:
        return {"trial": assignment.trial, "params": assignment.params, "attempt": assignment.attempt}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


class OptunaAssignmentSearcher(AssignmentSearcher):
    """The same with parameters from Ray's OptunaSearch (grids as categories).

    A trial that the scheduler stopped is told to Optuna as pruned and a failed one as failed, which OptunaSearch left to itself
    takes for complete; a completed one is told its best value.
    """

    def __init__(self, space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> None:
        super().__init__(space, budget, seed, log)
        from ray.tune.search.optuna import OptunaSearch

        self._inner = OptunaSearch(
            distributions(space),
            metric="value",
            mode="max",
            seed=seed + len(log.finished),  # a resumed search does not draw its first points again
            points_to_evaluate=[self._searched(lost.params) for lost in self._lost],
        )
        for recorded in log.trials:
            if recorded.values:
                self._inner.add_evaluated_point(
                    self._searched(recorded.params),
                    max(recorded.values),
                    error=recorded.state == "FAILED",
                    pruned=recorded.state == "PRUNED",
                    intermediate_values=[recorded.values[0], *recorded.values],  # OptunaSearch counts from 0
                )
        self._best: dict[str, float] = {}

    def _searched(self, params: dict[str, Any]) -> dict[str, Any]:
        return {name: params[name] for name in self._space.dimensions}

    def _params(self, trial_id: str, number: int) -> dict[str, Any]:
        return {**(self._inner.suggest(trial_id) or {}), **self._space.fixed}

    def _adopt(self, trial_id: str, lost: Assignment) -> Assignment:
        return dataclasses.replace(lost, params=self._params(trial_id, lost.trial))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See `Searcher`."""
        self._best[trial_id] = max(result["value"], self._best.get(trial_id, -math.inf))
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`; `result` is the last one."""
        result = result or {}
        best = max(result.get("value", -math.inf), self._best.pop(trial_id, -math.inf))
        if result.get("state") == "COMPLETE":
            self._inner.on_trial_complete(trial_id, {"value": best})
        else:
            self._inner.on_trial_complete(trial_id, None, error=error or result.get("state") == "FAILED")


def make_searcher(space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> Searcher:
    """The searcher for the budget's sampler."""
    return (OptunaAssignmentSearcher if budget.sampler == "tpe" else AssignmentSearcher)(space, budget, seed, log)


class LogCallback(Callback):
    """Writes what Tune's trials do into the log."""

    def __init__(self, log: TrialLog, epochs: int, own_cluster: bool = False) -> None:
        self._log, self._epochs, self._own_cluster = log, epochs, own_cluster
        self._last_running = time.monotonic()
        self.error: str | None = None  # why the search cannot go on
        self._deaths: dict[int, int] = {}
        self._endings: dict[int, dict[str, Any]] = {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End a search whose own Ray has lost its node, or starts no actor: Tune would wait for ever."""
        waited = time.monotonic() - self._last_running
        if not self._own_cluster or any(trial.status == "RUNNING" for trial in trials):
            self._last_running = time.monotonic()
        elif waited > PATIENCE or (waited > 5 and ray.cluster_resources().get("CPU", 0) < 1):
            self.error = (
                f"Ray has started no trial for {waited:.0f} seconds (was one of its processes killed?); go on with --resume"
            )
            raise ShardwaveError(self.error)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or starts anew after its actor died."""
        config = trial.config
        number = config["trial"]
        self._log.start(Assignment(number, config["params"], config["attempt"] + self._deaths.get(number, 0)), "")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A result: a new epoch, or an end, or both."""
        if "broken" in result:
            self.error = result["broken"]
            raise ShardwaveError(self.error)
        number = trial.config["trial"]
        running = self._log.running[number]
        running.worker, running.info = result["worker"], result["info"]
        if result["epoch"] == running.epochs + 1:
            self._log.report(number, result["epoch"], result["value"], result["spent"])
        if "state" in result:
            self._endings[number] = result

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended: by itself, or stopped by the scheduler."""
        number = trial.config["trial"]
        ending = self._endings.pop(number, {"state": "PRUNED", "error": None})
        self._log.end(number, *final_state(self._log.running[number], ending["state"], ending["error"], self._epochs))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial's actor died; Tune starts it again."""
        number = trial.config["trial"]
        self._deaths[number] = self._deaths.get(number, 0) + 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial's actor died too often."""
        number = trial.config["trial"]
        if number not in self._log.running:
            self._log.start(Assignment(number, trial.config["params"], trial.config["attempt"]), "")
        cause = trial.get_pickled_error() or trial.get_error()
        self._log.end(number, "FAILED", f"{describe(cause)[:300]}, in each of {MAX_ATTEMPTS} attempts")
