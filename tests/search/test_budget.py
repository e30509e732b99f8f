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


def test_wrong_usage() -> None:
    with pytest.raises(UsageError, match="grace_period must be an integer or auto, got later"):
        SearchConfig("mlp", grace_period="later", device="cpu").budget()
    with pytest.raises(
        UsageError, match="first_trial must be one of auto, sampled, default, recorded, got best"
    ):
        SearchBudget(first_trial="best")
