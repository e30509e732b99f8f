"""The budget of a search, and the schedulers and samplers of each backend."""

from __future__ import annotations

import dataclasses
import math

from shardwave.common import plugins
from shardwave.common.environment import cores
from shardwave.common.errors import UsageError, require

BACKENDS = ("ray", "optuna", "syne-tune", "random")
AUTO = "auto"  # sampler or scheduler that `shardwave.search.auto` chooses
SCHEDULERS = {
    "ray": ("asha", "median", "none"),
    "optuna": ("asha", "hyperband", "median", "none"),
    "syne-tune": ("asha", "none"),
    "random": ("none", "median"),
}
SAMPLERS = {
    "ray": ("random", "grid", "tpe"),
    "optuna": ("tpe", "tpe-univariate", "random", "grid", "gp", "cmaes", "qmc", "priorband"),
    "syne-tune": ("cqr", "bore", "kde", "random", "grid"),
    "random": ("random", "grid"),
}
FIRST_TRIALS = ("auto", "sampled", "default", "recorded")
DRAWN = ("random", "grid")  # samplers whose trials depend on the seed alone
# defaults of a search, for all backends; docs/search.md shows the evidence
FIRST_TRIAL = "auto"
GRACE_PERIOD: int | str = "auto"  # or an integer
REDUCTION_FACTOR = 3
AFTER_WARM_UP = 1  # epochs between the end of the warm-up and the first rung that "auto" chooses


@dataclasses.dataclass(frozen=True)
class SearchBudget:
    """Number and length of the trials of a search, and the algorithms that choose and stop them.

    Attributes:
        trials: Total number of trials.
        epochs: Maximum number of epochs per trial.
        jobs: Number of trials that run concurrently; None: one per core.
        scheduler: Early-stopping algorithm; None: the first of `SCHEDULERS` for the backend.
        grace_period: Number of epochs for which no trial is stopped.
        reduction_factor: Successive halving continues one of `reduction_factor` trials at each rung.
        sampler: Algorithm that chooses parameters; None: the first of `SAMPLERS` for the backend.
        first_trial: Parameters of the first trials: "sampled" as those of the other trials; "default": trial
            0 has the prior of the space, which holds the default values of the model; "recorded": the first
            trials are the starts of the space; "auto": "recorded" with a sampler that learns, else "sampled".
        gpus_per_trial: Share of a GPU that each trial uses, at most 1; with 0, trials need no GPU.
    """

    trials: int = 20
    epochs: int = 10
    jobs: int | None = None
    scheduler: str | None = None
    grace_period: int = 1
    reduction_factor: int = REDUCTION_FACTOR
    sampler: str | None = None
    first_trial: str = "sampled"
    gpus_per_trial: float = 0.0

    def __post_init__(self) -> None:
        require(self.trials >= 1, "trials must be 1 or more", self.trials)
        require(self.epochs >= 1, "epochs must be 1 or more", self.epochs)
        require(self.jobs is None or self.jobs >= 1, "jobs must be 1 or more", self.jobs)
        require(
            1 <= self.grace_period <= self.epochs,
            f"grace_period must be between 1 and epochs ({self.epochs})",
            self.grace_period,
        )
        require(self.reduction_factor >= 2, "reduction_factor must be 2 or more", self.reduction_factor)
        require(
            self.first_trial in FIRST_TRIALS,
            f"first_trial must be one of {', '.join(FIRST_TRIALS)}",
            self.first_trial,
        )
        require(
            0 <= self.gpus_per_trial <= 1,
            "gpus_per_trial must be between 0 and 1 (a trial trains on one GPU)",
            self.gpus_per_trial,
        )

    def resolve(self, backend: str) -> SearchBudget:
        """Return a copy with the defaults of `backend` in place of None, and at most as many jobs as trials.

        Raises:
            UsageError: If the backend is unknown or lacks the scheduler or the sampler.
        """
        schedulers, samplers = algorithms_of(backend)
        scheduler, sampler = self.scheduler or schedulers[0], self.sampler or samplers[0]
        for name, value, supported, all_supported in (
            ("scheduler", scheduler, schedulers, SCHEDULERS),
            ("sampler", sampler, samplers, SAMPLERS),
        ):
            if value not in supported:
                others = [other for other in BACKENDS if value in all_supported[other]]
                hint = f"; --backend {' or '.join(others)} supports it" if others else ""
                raise UsageError(
                    f"{name} of backend {backend} must be one of {', '.join(supported)}, got {value}{hint}"
                )
        jobs = min(self.jobs if self.jobs is not None else cores(), self.trials)
        first = self.first_trial
        if first == AUTO:
            first = "sampled" if sampler in DRAWN else "recorded"
        return dataclasses.replace(self, scheduler=scheduler, sampler=sampler, jobs=jobs, first_trial=first)


def grace_after(warm_up: float, epochs: int) -> int:
    """Return the grace period that ends `AFTER_WARM_UP` epochs after the warm-up of the learning rate.

    Before, trials are ranked by their learning rates rather than by the values that they reach.

    Args:
        warm_up: Fraction of the epochs in which the learning rate rises; 0 without a warm-up.
        epochs: Maximum number of epochs per trial.
    """
    return min(epochs, math.ceil(warm_up * epochs) + AFTER_WARM_UP) if warm_up else 1


def algorithms_of(backend: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the schedulers and of the samplers of a backend, the default first in each.

    Raises:
        UsageError: If there is no such backend.
    """
    if backend in BACKENDS:
        return SCHEDULERS[backend], SAMPLERS[backend]
    extension = plugins.load("backends", backend)
    if extension is None:
        raise UsageError(
            f"backend must be one of {', '.join((*BACKENDS, *plugins.names('backends')))}, got {backend}"
        )
    return tuple(extension.schedulers), tuple(extension.samplers)
