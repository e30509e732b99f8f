"""Measures of replayed searches: normalised regret, speed-up over random search, ranks and their tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from shardwave.bench.search_quality.curves import Table
from shardwave.bench.search_quality.replay import Search

RESAMPLES = 2000  # of the bootstrap
TARGET = 20  # full trainings after which random search sets the target of the speed-ups
Interval = tuple[float, float, float]  # lower bound of 95 %, median, upper bound


class Scale(NamedTuple):
    """Scale of the regret of a table.

    Attributes:
        best: Best validation accuracy of the table, regret 0.
        first: Median over the configurations of their best accuracy, regret 1: what the first trial of a
            random search reaches.
    """

    best: float
    first: float

    def regret(self, value: float) -> float:
        """Return the normalised regret of a validation accuracy."""
        return (self.best - value) / (self.best - self.first)


def scale_of(table: Table) -> Scale:
    """Return the scale of a table."""
    reached = [max(row.values[: table.epochs]) for row in table.rows]
    return Scale(max(reached), float(np.median(reached)))


def interval(values: Sequence[float], statistic: Callable[..., np.ndarray] = np.median) -> Interval:
    """Return a statistic with its bootstrap interval of 95 % (percentiles, fixed seed).

    Args:
        values: One value per search; infinite values are allowed.
        statistic: Function of an array and `axis`.
    """
    array = np.asarray(values, float)
    generator = np.random.default_rng(0)
    drawn = array[generator.integers(0, len(array), (RESAMPLES, len(array)))]
    with np.errstate(invalid="ignore"):  # inf - inf between two infinite values
        resampled = np.sort(statistic(drawn, axis=1))
        middle = float(statistic(array, axis=0))
    low, high = resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES) - 1]
    return float(low), middle, float(high)


def value_at(search: Search, epochs: float) -> float:
    """Return the best validation accuracy after a number of epochs, minus infinity before the first."""
    return max((step.best for step in search.steps if step.epochs <= epochs), default=-math.inf)


def test_at(search: Search, epochs: float) -> float:
    """Return the test accuracy of the epoch that is best in validation after a number of epochs."""
    found = [step.test for step in search.steps if step.epochs <= epochs]
    return found[-1] if found else math.nan


def reached(search: Search, value: float, axis: str) -> float:
    """Return the epochs or the seconds until a validation accuracy is reached; infinite if it is not.

    Args:
        search: The search.
        value: Validation accuracy.
        axis: `epochs` or `seconds`.
    """
    return next((float(getattr(step, axis)) for step in search.steps if step.best >= value - 1e-12), math.inf)


def speed_up(
    searches: Sequence[Search], baseline: Sequence[Search], budget: int, axis: str = "epochs"
) -> Interval:
    """Return how many times faster searches reach what random search reaches with its whole budget.

    The target is the (lower) median of the best accuracies of the random searches after `budget` epochs. The
    speed-up is the ratio of the median costs until the target is reached. Its interval is a bootstrap over
    the searches, without the uncertainty of the target.

    Args:
        searches: Searches of a strategy.
        baseline: Random searches.
        budget: Epochs of the baseline.
        axis: Cost: `epochs` or `seconds`.

    Returns:
        The interval; 0 if half of the searches do not reach the target.
    """
    finals = [value_at(search, budget) for search in baseline]
    target = float(np.quantile(finals, 0.5, method="lower"))  # more than half of the searches reach it
    plain = float(np.median([reached(search, target, axis) for search in baseline]))
    low, middle, high = interval([reached(search, target, axis) for search in searches])
    slow, median, fast = (plain / cost if math.isfinite(cost) else 0.0 for cost in (high, middle, low))
    return slow, median, fast


class Ranking(NamedTuple):
    """Comparison of strategies over blocks (tables and numbers of workers).

    Attributes:
        ranks: Mean rank of each strategy, 1 is best; in ascending order.
        p: p-value of Friedman's test that all strategies are equal.
        critical: Difference of mean ranks above which two strategies differ at 5 % (Nemenyi).
        blocks: Number of blocks.
    """

    ranks: dict[str, float]
    p: float
    critical: float
    blocks: int


def ranking(regrets: Mapping[str, Sequence[float]]) -> Ranking:
    """Rank strategies in each block, and test whether they differ (Demsar 2006).

    Args:
        regrets: Median regret by strategy, one per block in the same order; at least three strategies and
            two blocks.
    """
    from scipy import stats

    names, matrix = list(regrets), np.array(list(regrets.values()))
    ranks = stats.rankdata(matrix, axis=0).mean(axis=1)
    count, blocks = matrix.shape
    p = float(stats.friedmanchisquare(*matrix).pvalue)
    quantile = float(stats.studentized_range.ppf(0.95, count, math.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(count * (count + 1) / (6 * blocks))
    ordered = dict(sorted(zip(names, ranks.tolist(), strict=True), key=lambda item: item[1]))
    return Ranking(ordered, p, critical, blocks)


def beaten_by(name: str, regrets: Mapping[str, Sequence[float]], level: float = 0.05) -> list[str]:
    """Return the strategies with significantly lower regrets than `name`.

    One-sided Mann-Whitney tests over the seeds, corrected by Holm's method for the number of strategies.

    Args:
        name: The strategy.
        regrets: Regrets of all strategies, one per seed.
        level: Significance level.
    """
    from scipy import stats

    others = [other for other in regrets if other != name]
    p = {
        other: float(stats.mannwhitneyu(regrets[other], regrets[name], alternative="less").pvalue)
        for other in others
    }
    beaten = []
    for rank, other in enumerate(sorted(others, key=lambda other: p[other])):
        if p[other] > level / (len(others) - rank):
            break
        beaten.append(other)
    return beaten


def rank_correlation(table: Table, epochs: int, by_loss: bool = False) -> list[float]:
    """Return Kendall's tau between the accuracies after each epoch and the best of the whole training.

    Args:
        table: Learning curves.
        epochs: Epochs of a training.
        by_loss: Whether the losses of the epochs are compared instead of their accuracies.
    """
    from scipy import stats

    final = [max(row.values[:epochs]) for row in table.rows]
    early = [[-loss for loss in row.losses] if by_loss else row.values for row in table.rows]
    return [
        float(stats.kendalltau([values[epoch] for values in early], final).statistic)
        for epoch in range(epochs)
    ]


def oracle_speed_up(table: Table, early: int, budget: int = TARGET, orders: int = 1000) -> float:
    """Return a bound of the speed-up of strategies that train random configurations for some epochs each.

    After `early` epochs, an oracle knows whether a configuration will reach the target of `speed_up`, and
    continues the first that will. The bound is the ratio of the median costs without and with the oracle.

    Args:
        table: Learning curves.
        early: Epochs after which the oracle decides.
        budget: Full trainings of the random search that sets the target.
        orders: Random orders of the configurations.
    """
    curves = np.array([row.values[: table.epochs] for row in table.rows])
    generator = np.random.default_rng(0)
    shuffled = np.array([generator.permutation(len(curves)) for _ in range(orders)])
    best = curves.max(axis=1)
    target = np.quantile(best[shuffled[:, :budget]].max(axis=1), 0.5, method="lower") - 1e-12
    tried = (best >= target)[shuffled].argmax(axis=1)  # configurations before the first that reaches it
    epochs = (curves >= target).argmax(axis=1)[shuffled[np.arange(orders), tried]] + 1
    plain, known = (np.median(tried * each + epochs) for each in (table.epochs, early))
    return float(plain / known)


def noise(table: Table) -> float | None:
    """Return the standard deviation of a configuration's best accuracy over seeds; None without repeats."""
    if table.repeats is None:
        return None
    best = table.repeats.max(axis=2)  # [configurations, seeds]
    return float(np.sqrt(best.var(axis=1, ddof=1).mean()))
