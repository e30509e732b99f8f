"""Ray Tune's schedulers, searchers and callbacks for a search."""

from __future__ import annotations

import dataclasses
import math
import time
import types
from collections.abc import Sequence
from typing import Any, cast

import ray
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from shardwave.common.errors import ShardwaveError
from shardwave.search.backends.optuna.parts import distributions
from shardwave.search.backends.random import fixed_point
from shardwave.search.backends.ray.actor import TuneConfig, TuneResult
from shardwave.search.backends.ray.files import FileQueue
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import MAX_ATTEMPTS, Assignment, Params, Trial, final_state
from shardwave.search.trial_log import KEPT, TrialLog
from shardwave.search.workers.worker import describe

MEDIAN_TRIALS = 3
PATIENCE = 120.0  # seconds without a running trial after which the search fails


def make_scheduler(budget: SearchBudget, log: TrialLog) -> TrialScheduler:
    """Create the scheduler of the budget, and replay the finished trials of the log to it.

    The scheduler counts `epoch` because Tune's `training_iteration` restarts from 1 when a trial is retried.
    """
    if budget.scheduler == "none":
        return FIFOScheduler()
    scheduler: TrialScheduler
    if budget.scheduler == "asha":
        scheduler = ASHAScheduler(
            time_attr="epoch",
            metric="value",
            mode="max",
            max_t=budget.epochs,
            grace_period=budget.grace_period,
            reduction_factor=budget.reduction_factor,
        )
    else:
        scheduler = MedianStoppingRule(
            time_attr="epoch",
            metric="value",
            mode="max",
            grace_period=budget.grace_period,
            min_samples_required=MEDIAN_TRIALS,
            min_time_slice=cast(Any, math.inf),  # never pause a trial, which needs checkpoints
        )
    for recorded in log.trials:
        _replay(scheduler, recorded)
    return scheduler


@dataclasses.dataclass(eq=False)  # hashable: median stopping uses trials as keys
class _Recorded:
    trial_id: str
    status: str = "RUNNING"


def _replay(scheduler: TrialScheduler, recorded: Trial) -> None:
    """Pass the results of a finished trial to a scheduler, to rebuild rungs that Ray does not save."""
    trial = cast(Any, _Recorded(f"recorded-{recorded.trial}"))
    controller = cast(Any, types.SimpleNamespace(get_live_trials=list))
    scheduler.on_trial_add(controller, trial)
    result: TuneResult = {}
    for epoch, value in enumerate(recorded.values, 1):
        result = {"epoch": epoch, "value": value}
        scheduler.on_trial_result(controller, trial, result)
    if recorded.state == "FAILED":
        scheduler.on_trial_error(controller, trial)
    else:
        scheduler.on_trial_complete(controller, trial, result)


class AssignmentSearcher(Searcher):
    """Searcher that numbers the trials: unfinished ones first, then numbers that are not in the log.

    Args:
        space: The search space.
        budget: The resolved budget.
        seed: Seed of the search.
        log: Log of the trials.
        retries: Suggest these trials and no others.
    """

    def __init__(
        self,
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog,
        retries: Sequence[Assignment] | None = None,
    ) -> None:
        super().__init__(metric="value", mode="max")
        self._space, self._budget, self._seed = space, budget, seed
        self._numbers: list[int] = []
        if retries is not None:
            self._unfinished = list(retries)
            return
        self._unfinished = [assignment for assignment in log.unfinished() if assignment.trial < budget.trials]
        known = log.finished.keys() | {assignment.trial for assignment in self._unfinished}
        self._numbers = [number for number in range(budget.trials) if number not in known]

    def suggest(self, trial_id: str) -> TuneConfig | None:
        """See `Searcher`; returns the fields of the next `Assignment`."""
        if self._unfinished:
            assignment = self._unfinished.pop(0)
            return self._config(self._adopt(trial_id, assignment))
        if not self._numbers:
            return cast(Any, Searcher.FINISHED)
        number = self._numbers.pop(0)
        return self._config(Assignment(number, self._params(trial_id, number)))

    def _params(self, trial_id: str, number: int) -> Params:
        return fixed_point(self._space, self._budget, number, self._seed)

    def _adopt(self, trial_id: str, assignment: Assignment) -> Assignment:
        return assignment

    def _config(self, assignment: Assignment) -> TuneConfig:
        return {"trial": assignment.trial, "params": assignment.params, "attempt": assignment.attempt}

    def on_trial_complete(self, trial_id: str, result: TuneResult | None = None, error: bool = False) -> None:
        """See `Searcher`; does nothing."""


class OptunaAssignmentSearcher(AssignmentSearcher):
    """Searcher with parameters from Ray's OptunaSearch; a `Grid` is a categorical parameter.

    OptunaSearch reports all trials to Optuna as complete. This class reports stopped trials as pruned, failed
    ones as failed, and complete ones with their best value.

    Args:
        space: The search space.
        budget: The resolved budget.
        seed: Seed of the search.
        log: Log of the trials; finished ones are reported to Optuna.
    """

    def __init__(self, space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> None:
        super().__init__(space, budget, seed, log)
        from ray.tune.search.optuna import OptunaSearch

        self._inner = OptunaSearch(
            distributions(space),
            metric="value",
            mode="max",
            seed=seed + len(log.finished),  # a resumed search draws new points
            points_to_evaluate=[
                *(self._searched(assignment.params) for assignment in self._unfinished),
                *(
                    self._searched(fixed_point(space, budget, number, seed))
                    for number in self._numbers
                    if space.first_trial(number, budget.first_trial) is not None
                ),
            ],
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

    def _searched(self, params: Params) -> Params:
        return {name: params[name] for name in self._space.dimensions}

    def _params(self, trial_id: str, number: int) -> Params:
        return {**(self._inner.suggest(trial_id) or {}), **self._space.fixed}

    def _adopt(self, trial_id: str, assignment: Assignment) -> Assignment:
        return dataclasses.replace(assignment, params=self._params(trial_id, assignment.trial))

    def on_trial_result(self, trial_id: str, result: TuneResult) -> None:
        """See `Searcher`."""
        self._best[trial_id] = max(result["value"], self._best.get(trial_id, -math.inf))
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: TuneResult | None = None, error: bool = False) -> None:
        """See `Searcher`; `result` is the last one."""
        result = result or {}
        best = max(result.get("value", -math.inf), self._best.pop(trial_id, -math.inf))
        if result.get("state") == "COMPLETE":
            self._inner.on_trial_complete(trial_id, {"value": best})
        else:
            self._inner.on_trial_complete(trial_id, None, error=error or result.get("state") == "FAILED")


def make_searcher(space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> Searcher:
    """Create the searcher for the sampler of the budget.

    Args:
        space: The search space.
        budget: The resolved budget.
        seed: Seed of the search.
        log: Log of the trials, see `AssignmentSearcher`.
    """
    return (OptunaAssignmentSearcher if budget.sampler == "tpe" else AssignmentSearcher)(
        space, budget, seed, log
    )


class LogCallback(Callback):
    """Tune callback that records the trials in the log.

    Args:
        log: Records the trials.
        epochs: Maximum number of epochs per trial.
        own_cluster: Whether Ray was started for this search.
        files: Queue of files for the run folder.

    Attributes:
        error: Reason for which the search cannot continue, or None.
        retries: Trials that ran out of GPU memory beside others, to be run alone on their GPU.
        alone: Whether the trials of this run are alone on their GPU.
    """

    def __init__(
        self, log: TrialLog, epochs: int, own_cluster: bool = False, files: FileQueue | None = None
    ) -> None:
        self._files = files
        self.retries: list[Assignment] = []
        self.alone = True
        self._log, self._epochs, self._own_cluster = log, epochs, own_cluster
        self._last_running = time.monotonic()
        self.error: str | None = None
        self._deaths: dict[int, int] = {}
        self._endings: dict[int, TuneResult] = {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See `Callback`; raises ShardwaveError if its own cluster runs no trial: Tune would wait forever."""
        waited = time.monotonic() - self._last_running
        if not self._own_cluster or any(trial.status == "RUNNING" for trial in trials):
            self._last_running = time.monotonic()
        elif waited > PATIENCE or (waited > 5 and ray.cluster_resources().get("CPU", 0) < 1):
            self.error = (
                f"Ray has run no trial for {waited:.0f} s (was one of its processes killed?); continue "
                "with --resume"
            )
            raise ShardwaveError(self.error)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Callback`; records the start of an attempt."""
        config = trial.config
        number = config["trial"]
        self._log.start(
            Assignment(number, config["params"], config["attempt"] + self._deaths.get(number, 0)), ""
        )

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: TuneResult, **info: Any
    ) -> None:
        """See `Callback`; records an epoch or an end; raises ShardwaveError if the search cannot continue."""
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
        """See `Callback`; records a trial that ended by itself or was stopped by the scheduler."""
        number = trial.config["trial"]
        ending = self._endings.pop(number, {"state": "PRUNED", "error": None})
        if self._files is not None and self._log.folder is not None:
            self._files.write(self._log.folder / KEPT)
        running, error = self._log.running[number], ending["error"]
        if ending.get("out_of_gpu_memory"):
            if not self.alone:
                attempt = running.attempt + 1
                self.retries.append(Assignment(number, running.params, attempt, alone=True))
                self._deaths.pop(number, None)
                return
            error = f"{error}, although no other trial of this search used the GPU"
        self._log.end(number, *final_state(running, ending["state"], error, self._epochs))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Callback`; counts the deaths of a trial's actor, after which Tune retries the trial."""
        number = trial.config["trial"]
        self._deaths[number] = self._deaths.get(number, 0) + 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Callback`; records the failure of a trial that Tune does not retry."""
        number = trial.config["trial"]
        if number not in self._log.running:
            self._log.start(Assignment(number, trial.config["params"], trial.config["attempt"]), "")
        cause = trial.get_pickled_error() or trial.get_error()
        self._log.end(number, "FAILED", f"{describe(cause)[:300]}, in each of {MAX_ATTEMPTS} attempts")
