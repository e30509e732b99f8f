"""Measures of replayed searches on examples that can be computed by hand."""

import math

import pytest

from shardwave.bench.search_quality import measures
from shardwave.bench.search_quality.curves import Row, Table
from shardwave.bench.search_quality.replay import Search, Step
from shardwave.search.space import Space, Uniform


def search(*steps):
    """A search whose best value rises at (epochs, value); an epoch takes two seconds."""
    return Search([Step(2.0 * epochs, epochs, value, value / 2) for epochs, value in steps], 1, 0.0)


def test_regret_is_one_for_the_median_first_trial_and_zero_for_the_best():
    rows = [Row({"x": x}, [0.9 * x, x, x / 2], 1.0) for x in (0.2, 0.5, 0.9)]
    scale = measures.scale_of(Table("t", Space({"x": Uniform(0, 1)}), rows))
    assert (scale.regret(0.9), scale.regret(0.5)) == (0.0, 1.0)
    assert scale.regret(0.7) == pytest.approx(0.5)


def test_values_and_test_accuracies_after_some_epochs():
    found = search((1, 0.2), (4, 0.6))
    assert [measures.value_at(found, epochs) for epochs in (0.5, 1, 3.9, 4)] == [-math.inf, 0.2, 0.2, 0.6]
    assert measures.test_at(found, 3) == 0.1 and measures.test_at(found, 9) == 0.3


def test_speed_up_is_the_ratio_of_the_costs_of_the_same_accuracy():
    plain = [search((1, 0.1), (40, 0.5), (100, 0.5)) for _ in range(5)]
    fast = [search((1, 0.1), (10, 0.55), (100, 0.55)) for _ in range(5)]
    never = [search((1, 0.1), (100, 0.1)) for _ in range(5)]
    assert measures.speed_up(fast, plain, 100) == (4.0, 4.0, 4.0)
    assert measures.speed_up(fast, plain, 100, "seconds") == (4.0, 4.0, 4.0)
    assert measures.speed_up(plain, plain, 100)[1] == 1.0
    assert measures.speed_up(never, plain, 100) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_median_and_is_the_same_every_time():
    values = [float(value) for value in range(30)]
    low, middle, high = measures.interval(values)
    assert low < middle == 14.5 < high and measures.interval(values) == (low, middle, high)


def test_nemenyi_critical_difference_of_demsar_2006():
    """Demsar's tables: q = 2.728 for five classifiers, and 2.569 for four; his example has 14 data sets."""
    regrets = {name: [float(rank)] * 14 for rank, name in enumerate("abcd")}
    ranked = measures.ranking(regrets)
    assert list(ranked.ranks) == list("abcd") and ranked.ranks["a"] == 1.0
    assert ranked.critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert ranked.p < 1e-6


def test_only_significantly_better_strategies_beat_another():
    even = [0.5 + 0.01 * (seed % 7) for seed in range(30)]
    regrets = {"plain": even, "same": even[::-1], "better": [value - 0.2 for value in even]}
    assert measures.beaten_by("plain", regrets) == ["better"]
    assert measures.beaten_by("better", regrets) == []


def test_rank_correlation_of_early_epochs_and_noise_over_seeds():
    import numpy as np

    rows = [Row({"x": x}, [0.1 - x / 10, x, x], 1.0) for x in (0.2, 0.4, 0.6, 0.8)]
    repeats = np.array([[[0.5], [0.7]], [[0.6], [0.6]]])
    table = Table("t", Space({"x": Uniform(0, 1)}), rows, repeats=repeats)
    early, *late = measures.rank_correlation(table, 3)
    assert late == [1.0, 1.0] and early < 0.5
    assert measures.noise(table) == pytest.approx(0.1)


def test_the_oracle_pays_the_early_epochs_and_then_trains_the_right_one():
    """Every second configuration reaches the target, in its last of ten epochs."""
    rows = [Row({"x": x / 9}, [0.1] * 9 + [x % 2], 1.0) for x in range(10)]
    table = Table("t", Space({"x": Uniform(0, 1)}), rows)
    assert measures.oracle_speed_up(table, 10) == 1.0
    middle = measures.oracle_speed_up(table, 1, budget=1)
    assert middle >= 1.0 and measures.oracle_speed_up(table, 0, budget=20) >= middle
