"""Budgets: the grace period after a warm-up, the first trial."""

from __future__ import annotations

import pytest

from shardwave.common.errors import UsageError
from shardwave.search.budget import SearchBudget, grace_after
from shardwave.search.config import SearchConfig


@pytest.mark.parametrize(("epochs", "grace"), [(1, 1), (2, 2), (10, 3), (15, 4), (30, 7), (50, 11)])
def test_the_automatic_grace_period_ends_after_the_warm_up(epochs: int, grace: int) -> None:
    assert grace_after(0.2, epochs) == grace
    assert grace_after(0.0, epochs) == 1
    config = SearchConfig("mlp", epochs=epochs, grace_period="auto", device="cpu")
    assert config.budget().grace_period == grace


def test_without_a_schedule_the_automatic_grace_period_is_one_epoch() -> None:
    config = SearchConfig("vgg16", epochs=10, grace_period="auto", device="cpu")
    assert config.training().schedule == "none" and config.budget().grace_period == 1


@pytest.mark.parametrize(
    ("backend", "sampler", "first"),
    [
        ("optuna", None, "recorded"),
        ("optuna", "random", "sampled"),
        ("ray", None, "sampled"),
        ("ray", "tpe", "recorded"),
        ("random", "grid", "sampled"),
    ],
)
def test_samplers_that_learn_start_with_recorded_values(
    backend: str, sampler: str | None, first: str
) -> None:
    config = SearchConfig("mlp", backend, sampler=sampler, device="cpu")
    assert config.budget().first_trial == first
    for kind in ("sampled", "default", "recorded"):
        given = SearchConfig("mlp", backend, sampler=sampler, device="cpu", first_trial=kind)
        assert given.budget().first_trial == kind


def test_wrong_usage() -> None:
    with pytest.raises(UsageError, match="grace_period must be an integer or auto, got later"):
        SearchConfig("mlp", grace_period="later", device="cpu").budget()
    with pytest.raises(
        UsageError, match="first_trial must be one of auto, sampled, default, recorded, got best"
    ):
        SearchBudget(first_trial="best")
