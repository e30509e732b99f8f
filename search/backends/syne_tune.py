"""The Syne Tune backend: Syne Tune's searchers and schedulers choose and stop trials of a `WorkerPool`.

Syne Tune's own tuner and processes are not used. Its package is optional: `pip install
'shardwave[syne-tune]'`, about 700 MB with XGBoost.
"""

from __future__ import annotations

import datetime
import logging
import random
from collections.abc import Callable
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.search.backends.random import fixed_point, run_in_pool
from shardwave.search.backends.seeding import seeded
from shardwave.search.budget import DRAWN, SAMPLERS, SearchBudget
from shardwave.search.space import Choice, LogUniform, Space
from shardwave.search.trial import Assignment, Params, SearchResult, Trial
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers.driver import Driver

VALUE, EPOCH = "value", "epoch"  # names of a result's fields


class SyneTuneBackend:
    """Search with Syne Tune.

    Samplers: `cqr` (Salinas et al., "Optimizing hyperparameters with conformal quantile regression", ICML
    2023), `bore` (Tiao et al., ICML 2021), `kde` (as in BOHB), random, grid. Schedulers: ASHA, none. With the
    random and grid samplers, the parameters depend on the seed alone; with one job, the whole search depends
    on the seed and the versions of Syne Tune and its packages.

    Raises:
        UsageError: If the package or one that it needs is not installed.
    """

    name = "syne-tune"

    def __init__(self) -> None:
        for sampler in SAMPLERS[self.name]:
            _searcher(sampler)

    def run(
        self,
        objective: Callable[..., None],
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog | None = None,
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        return run_in_pool(objective, SyneTuneDriver(space, budget, seed, log), budget, log)


class SyneTuneDriver(Driver):
    """Driver that takes trials from a scheduler of Syne Tune, unfinished trials first.

    Args:
        space: The search space.
        budget: The resolved budget.
        seed: Seed of the search.
        log: Log of the trials; the scheduler learns from finished ones.
    """

    def __init__(self, space: Space, budget: SearchBudget, seed: int, log: TrialLog) -> None:
        self._space, self._budget, self._seed = space, budget, seed
        self._scheduler = _scheduler(space, budget, random.Random(f"sampler {seed}").getrandbits(31))
        self._live: dict[int, Any] = {}
        self._unfinished = [assignment for assignment in log.unfinished() if assignment.trial < budget.trials]
        known = log.finished.keys() | {assignment.trial for assignment in self._unfinished}
        self._numbers = [number for number in range(budget.trials) if number not in known]
        for recorded in log.trials:
            self._replay(recorded)

    def ask(self) -> Assignment | None:
        """See `Driver.ask`."""
        if self._unfinished:
            assignment = self._unfinished.pop(0)
        elif self._numbers:
            number = self._numbers.pop(0)
            assignment = Assignment(number, self._params(number))
        else:
            return None
        self._add(assignment.trial, assignment.params)
        return assignment

    def report(self, trial: Trial) -> bool:
        """See `Driver.report`."""
        with seeded(f"report {self._seed} {trial.trial} {trial.epochs}"):
            return self._report(trial.trial, trial.epochs, trial.values[-1])

    def end(self, trial: Trial) -> None:
        """See `Driver.end`."""
        live = self._live.pop(trial.trial)
        if trial.state == "COMPLETE":
            self._scheduler.on_trial_complete(live, {VALUE: trial.value, EPOCH: trial.epochs})
        elif trial.state == "PRUNED":
            self._scheduler.on_trial_remove(live)
        else:
            self._scheduler.on_trial_error(live)

    def _params(self, number: int) -> Params:
        is_first = self._space.first_trial(number, self._budget.first_trial) is not None
        if is_first or self._budget.sampler in DRAWN:
            return fixed_point(self._space, self._budget, number, self._seed)
        with seeded(f"sampler {self._seed} {number}"):
            drawn = self._scheduler.suggest().config
        # rounding may leave the range by one unit in the last place
        near = {name: rule.nearest(drawn[name]) for name, rule in self._space.dimensions.items()}
        return {**near, **self._space.fixed}

    def _add(self, number: int, params: Params) -> None:
        from syne_tune.backend.trial_status import Trial as SyneTuneTrial

        searched = {name: params[name] for name in self._space.dimensions}
        self._live[number] = SyneTuneTrial(number, searched, datetime.datetime.now())
        self._scheduler.on_trial_add(self._live[number])

    def _report(self, number: int, epoch: int, value: float) -> bool:
        stop = self._scheduler.on_trial_result(self._live[number], {VALUE: value, EPOCH: epoch})
        return bool(stop == "STOP" and epoch < self._budget.epochs)

    def _replay(self, recorded: Trial) -> None:
        """Report a finished trial to the scheduler."""
        self._add(recorded.trial, recorded.params)
        for epoch, value in enumerate(recorded.values, 1):
            self._report(recorded.trial, epoch, value)
        self.end(recorded)


def _scheduler(space: Space, budget: SearchBudget, seed: int) -> Any:
    """Create the scheduler of the budget with the searcher of its sampler."""
    searcher = _searcher(str(budget.sampler))
    from syne_tune import config_space
    from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving
    from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler

    logging.getLogger("syne_tune").setLevel(logging.ERROR)
    domains = {
        name: config_space.choice(list(rule.values))
        if isinstance(rule, Choice)
        else (config_space.loguniform if isinstance(rule, LogUniform) else config_space.uniform)(
            rule.low, rule.high
        )
        for name, rule in space.dimensions.items()
    }
    if budget.scheduler == "asha":
        return AsynchronousSuccessiveHalving(
            domains,
            metric=VALUE,
            do_minimize=False,
            searcher=searcher,
            time_attr=EPOCH,
            max_t=budget.epochs,
            grace_period=budget.grace_period,
            reduction_factor=budget.reduction_factor,
            random_seed=seed,
        )
    return SingleObjectiveScheduler(
        domains,
        metric=VALUE,
        do_minimize=False,
        searcher=searcher,
        random_seed=seed,
        searcher_kwargs={"random_seed": seed},
    )


def _searcher(sampler: str) -> str:
    """Return Syne Tune's name of the sampler's searcher, after an import of what it needs."""
    name = "random_search" if sampler in DRAWN else sampler
    try:
        from syne_tune.optimizer.schedulers.searchers.searcher_factory import searcher_cls

        searcher_cls(name)
    except ImportError as error:
        raise UsageError(
            f"backend syne-tune needs the package syne-tune ({error}): pip install 'shardwave[syne-tune]'"
        ) from None
    return name
