"""Algorithms chosen by space, budget and workers."""

from __future__ import annotations

import dataclasses

import pytest

from shardwave.common.errors import UsageError
from shardwave.search.auto import choose
from shardwave.search.budget import BACKENDS, SearchBudget, algorithms_of
from shardwave.search.config import SearchConfig
from shardwave.search.space import Space, space_for

SPACE = space_for("mlp")
WITHOUT_STARTS = Space(SPACE.dimensions, prior=SPACE.prior)
WITHOUT_PRIOR = Space(SPACE.dimensions)


@pytest.mark.parametrize(
    ("space", "trials", "epochs", "workers", "expected"),
    [
        (SPACE, 100, 30, 4, ("tpe", "asha", 7, "recorded")),
        (SPACE, 5, 30, 1, ("random", "none", 7, "recorded")),  # too few to learn from or to compare
        (SPACE, 8, 30, 1, ("random", "asha", 7, "recorded")),
        (WITHOUT_STARTS, 8, 30, 1, ("random", "asha", 7, "default")),
        (WITHOUT_STARTS, 100, 30, 1, ("tpe", "asha", 7, "sampled")),
        (WITHOUT_PRIOR, 8, 30, 1, ("random", "asha", 7, "sampled")),
        (SPACE, 30, 30, 16, ("random", "asha", 2, "recorded")),  # 16 trials start before the first has ended
        (SPACE, 30, 10, 16, ("random", "asha", 1, "recorded")),
        (SPACE, 100, 3, 4, ("tpe", "none", 2, "recorded")),  # the warm-up is most of a trial
    ],
)
def test_rules(
    space: Space, trials: int, epochs: int, workers: int, expected: tuple[str, str, int, str]
) -> None:
    chosen = choose(space, SearchBudget(trials=trials, epochs=epochs), workers, warm_up=0.2)
    assert (chosen.sampler, chosen.scheduler, chosen.grace_period, chosen.first_trial) == expected
    for word in (chosen.sampler, chosen.scheduler, chosen.first_trial, "because"):
        assert word in chosen.reason


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trials", [1, 10, 100])
@pytest.mark.parametrize("epochs", [1, 50])
def test_the_backend_has_what_is_chosen(backend: str, trials: int, epochs: int) -> None:
    schedulers, samplers = algorithms_of(backend)
    budget = SearchBudget(trials=trials, epochs=epochs)
    chosen = choose(SPACE, budget, 4, backend, 0.2)
    assert chosen.sampler in samplers and chosen.scheduler in schedulers
    settings = {name: value for name, value in dataclasses.asdict(chosen).items() if name != "reason"}
    assert dataclasses.replace(budget, **settings).resolve(backend).scheduler == chosen.scheduler


def test_only_what_is_auto_is_chosen_and_given_rungs_are_kept() -> None:
    common = {"trials": 50, "epochs": 30, "jobs": 2, "device": "cpu"}

    def algorithms(**options: str | int) -> tuple[str | None, str | None, int, int]:
        budget = SearchConfig("mlp", **common, **options).budget()
        return budget.sampler, budget.scheduler, budget.grace_period, budget.reduction_factor

    assert algorithms(sampler="auto", grace_period=1) == ("tpe", "asha", 1, 3)
    assert algorithms(sampler="random", scheduler="auto") == ("random", "asha", 7, 3)
    kept = algorithms(scheduler="auto", grace_period=5, reduction_factor=4)
    assert kept == ("tpe", "asha", 5, 4)

    def first_trial(**options: str | int) -> str:
        return SearchConfig("mlp", trials=50, epochs=30, device="cpu", **options).budget().first_trial

    assert first_trial(sampler="auto", jobs=16) == "recorded"
    assert first_trial(sampler="auto", jobs=16, first_trial="sampled") == "sampled"
    assert first_trial(sampler="random", scheduler="auto", jobs=16) == "sampled"


def test_recorded_values_that_do_not_exist_are_not_replaced() -> None:
    with pytest.raises(UsageError, match="no values are recorded for the search space of cnn-plus"):
        SearchConfig("cnn-plus", trials=2, device="cpu", first_trial="recorded").budget()
