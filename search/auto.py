"""`search --sampler auto --scheduler auto`: algorithms chosen by space, budget and number of workers."""

from __future__ import annotations

import dataclasses
import math

from shardwave.search.budget import REDUCTION_FACTOR, SearchBudget, algorithms_of, grace_after
from shardwave.search.space import Space

STARTUP = 10  # trials that the model-based samplers draw at random before their first model
PER_WORKER = 4  # trials per worker below which most trials start before there are results to learn from
COMPARED = 2 * REDUCTION_FACTOR  # trials below which stopping some by comparison is a matter of chance
LATEST = 0.5  # first rung, as a fraction of the epochs, after which stopping saves too little
EARLY = 0.05  # first rung, as a fraction of the epochs, with many workers
MODELS = ("tpe", "cqr")  # samplers that learn, in order of preference


@dataclasses.dataclass(frozen=True)
class Algorithms:
    """Algorithms of a search.

    Attributes:
        sampler: Algorithm that chooses parameters.
        scheduler: Early-stopping algorithm.
        grace_period: Number of epochs for which no trial is stopped.
        reduction_factor: Successive halving continues one of `reduction_factor` trials at each rung.
        first_trial: Parameters of the first trials, see `SearchBudget`.
        reason: Sentence that says why.
    """

    sampler: str
    scheduler: str
    grace_period: int
    reduction_factor: int
    first_trial: str
    reason: str


def choose(
    space: Space, budget: SearchBudget, workers: int, backend: str = "optuna", warm_up: float = 0.0
) -> Algorithms:
    """Choose the algorithms of a search; `docs/search.md` shows the replays from which the rules follow.

    With few trials per worker, a model has nothing to learn from when most trials start, and early stopping
    makes room for more trials.

    Args:
        space: The search space.
        budget: Trials and epochs; the other fields are not used.
        workers: Number of trials that run at a time.
        backend: Name of the backend, among whose algorithms is chosen.
        warm_up: Fraction of the epochs in which the learning rate rises.
    """
    schedulers, samplers = algorithms_of(backend)
    trials, epochs = budget.trials, budget.epochs
    crowded = trials < PER_WORKER * workers
    grace = max(1, math.ceil(EARLY * epochs)) if crowded else grace_after(warm_up, epochs)
    sampler, why_sampler = _sampler(trials, workers, samplers)
    scheduler, why_scheduler = _scheduler(trials, epochs, grace, schedulers)
    first, why_first = _first_trial(space, trials)
    reason = (
        f"sampler {sampler}, because {why_sampler}; scheduler {scheduler}, because {why_scheduler}; "
        f"first trial {first}, because {why_first}"
    )
    return Algorithms(sampler, scheduler, grace, REDUCTION_FACTOR, first, reason)


def _sampler(trials: int, workers: int, samplers: tuple[str, ...]) -> tuple[str, str]:
    """Return the sampler and the reason."""
    if trials <= STARTUP:
        return "random", f"{trials} trials are too few to learn from"
    if trials < PER_WORKER * workers:
        return "random", f"most of {trials} trials start before {workers} workers have results to learn from"
    learner = next((name for name in MODELS if name in samplers), None)
    if learner is None:
        return "random", "the backend has no sampler that learns"
    return learner, f"{trials} trials suffice to learn from"


def _scheduler(trials: int, epochs: int, grace: int, schedulers: tuple[str, ...]) -> tuple[str, str]:
    """Return the scheduler and the reason."""
    if trials < COMPARED:
        return "none", f"{trials} trials are too few to compare"
    if grace > LATEST * epochs:
        return "none", f"ranks say little before epoch {grace} of {epochs}"
    if "asha" not in schedulers:
        return schedulers[0], "the backend has no successive halving"
    return "asha", f"{trials} trials can be compared from epoch {grace} of {epochs} on"


def _first_trial(space: Space, trials: int) -> tuple[str, str]:
    """Return the kind of the first trials and the reason."""
    if space.starts:
        return "recorded", "values that were best on recorded data sets are known"
    if space.prior and trials <= STARTUP:
        return "default", f"the default values of the model are a safe start of {trials} trials"
    return "sampled", "no values are known to be good"
