"""`search --sampler auto --scheduler auto`: algorithms chosen by space, budget and number of workers."""

from __future__ import annotations

import dataclasses

from shardwave.search.budget import REDUCTION_FACTOR, SearchBudget, algorithms_of, grace_after
from shardwave.search.space import Space

STARTUP = 10  # trials that the model-based samplers draw at random before their first model
PER_WORKER = 4  # trials per worker below which most trials start before there are results to learn from
COMPARED = 2 * REDUCTION_FACTOR  # trials below which stopping some by comparison is a matter of chance
LATEST = 0.5  # first rung, as a fraction of the epochs, after which stopping saves too little
MODELS = ("tpe", "cqr")  # samplers that learn, in order of preference
PRIORS = ("priorband",)  # samplers that need few results, but a prior


@dataclasses.dataclass(frozen=True)
class Algorithms:
    """Algorithms of a search.

    Attributes:
        sampler: Algorithm that chooses parameters.
        scheduler: Early-stopping algorithm.
        grace_period: Number of epochs for which no trial is stopped.
        reduction_factor: Successive halving continues one of `reduction_factor` trials at each rung.
        reason: Sentence that says why.
    """

    sampler: str
    scheduler: str
    grace_period: int
    reduction_factor: int
    reason: str


def choose(
    space: Space, budget: SearchBudget, workers: int, backend: str = "optuna", warm_up: float = 0.0
) -> Algorithms:
    """Choose the algorithms of a search.

    Args:
        space: The search space.
        budget: Trials and epochs; the other fields are not used.
        workers: Number of trials that run at a time.
        backend: Name of the backend, among whose algorithms is chosen.
        warm_up: Fraction of the epochs in which the learning rate rises.
    """
    schedulers, samplers = algorithms_of(backend)
    sampler, why_sampler = _sampler(space, budget.trials, workers, samplers)
    grace = grace_after(warm_up, budget.epochs)
    scheduler, why_scheduler = _scheduler(budget.trials, budget.epochs, grace, schedulers)
    reason = f"sampler {sampler}, because {why_sampler}; scheduler {scheduler}, because {why_scheduler}"
    return Algorithms(sampler, scheduler, grace, REDUCTION_FACTOR, reason)


def _sampler(space: Space, trials: int, workers: int, samplers: tuple[str, ...]) -> tuple[str, str]:
    """Return the sampler and the reason."""
    if trials <= STARTUP:
        scarce = f"{trials} trials are too few to learn from"
    elif trials < PER_WORKER * workers:
        scarce = f"most of {trials} trials start before {workers} workers have results to learn from"
    else:
        scarce = ""
    wanted, why = (PRIORS if space.prior else (), scarce) if scarce else (MODELS, f"{trials} trials suffice")
    chosen = next((name for name in wanted if name in samplers), "random")
    if chosen == "random" and not scarce:
        return chosen, "the backend has no sampler that learns"
    if chosen in PRIORS:
        return chosen, f"{why}, and the default values of the model are known"
    return chosen, why if scarce else f"{why} to learn from"


def _scheduler(trials: int, epochs: int, grace: int, schedulers: tuple[str, ...]) -> tuple[str, str]:
    """Return the scheduler and the reason."""
    if trials < COMPARED:
        return "none", f"{trials} trials are too few to compare"
    if grace > LATEST * epochs:
        return "none", f"ranks say little before epoch {grace} of {epochs}"
    if "asha" not in schedulers:
        return schedulers[0], "the backend has no successive halving"
    return "asha", f"{trials} trials can be compared from epoch {grace} of {epochs} on"
