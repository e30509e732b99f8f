"""The budget of a search, and what each backend offers to spend it."""

from __future__ import annotations

import dataclasses

from shardwave.common import plugins
from shardwave.common.environment import cores
from shardwave.common.errors import UsageError, require

BACKENDS = ("ray", "optuna", "random")
SCHEDULERS = {"ray": ("asha", "median", "none"), "optuna": ("asha", "hyperband", "median", "none"), "random": ("none", "median")}
SAMPLERS = {"ray": ("random", "grid", "tpe"), "optuna": ("tpe", "random", "grid", "gp"), "random": ("random", "grid")}


@dataclasses.dataclass(frozen=True)
class SearchBudget:
    """How much is searched, and how. `None` takes the backend's default (the first of `SCHEDULERS` and `SAMPLERS`)."""

    trials: int = 20  # in total, for every backend and sampler
    epochs: int = 10  # at most, per trial
    jobs: int | None = None  # trials at a time; None = one per core
    scheduler: str | None = None
    grace: int = 1  # epochs that every trial runs
    reduction: int = 3  # successive halving keeps one in `reduction`
    sampler: str | None = None
    gpus_per_trial: float = 0.0  # a fraction shares one GPU between trials

    def __post_init__(self) -> None:
        require(self.trials >= 1, "trials must be 1 or more", self.trials)
        require(self.epochs >= 1, "epochs must be 1 or more", self.epochs)
        require(self.jobs is None or self.jobs >= 1, "jobs must be 1 or more", self.jobs)
        require(1 <= self.grace <= self.epochs, f"grace must lie between 1 and epochs ({self.epochs})", self.grace)
        require(self.reduction >= 2, "reduction must be 2 or more", self.reduction)
        require(self.gpus_per_trial >= 0, "gpus_per_trial must be 0 or more", self.gpus_per_trial)

    def resolve(self, backend: str) -> SearchBudget:
        """This budget with the backend's defaults filled in; raises `UsageError` for what the backend cannot do."""
        schedulers, samplers = offers(backend)
        scheduler, sampler = self.scheduler or schedulers[0], self.sampler or samplers[0]
        for name, value, offered, valid in (
            ("scheduler", scheduler, schedulers, SCHEDULERS),
            ("sampler", sampler, samplers, SAMPLERS),
        ):
            if value not in offered:
                others = [other for other in BACKENDS if value in valid[other]]
                hint = f"; --backend {' or '.join(others)} has it" if others else ""
                raise UsageError(f"{name} of backend {backend} must be one of {', '.join(offered)}, got {value}{hint}")
        jobs = self.jobs if self.jobs is not None else cores()
        return dataclasses.replace(self, scheduler=scheduler, sampler=sampler, jobs=min(jobs, self.trials))


def offers(backend: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the schedulers and the samplers of a backend, the defaults first; raises UsageError if there is no such backend."""
    if backend in BACKENDS:
        return SCHEDULERS[backend], SAMPLERS[backend]
    extension = plugins.load("backends", backend)
    if extension is None:
        raise UsageError(f"backend must be one of {', '.join((*BACKENDS, *plugins.names('backends')))}, got {backend}")
    return tuple(extension.schedulers), tuple(extension.samplers)
