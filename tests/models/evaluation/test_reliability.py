"""Reliability: the temperature that made probabilities wrong is found, and intervals cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from shardwave.models.evaluation import reliability as rel


def drawn(clips: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(clips, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities, np.array([rng.choice(classes, p=row) for row in probabilities])


def test_calibrated_probabilities_have_a_small_error_and_temperature_one() -> None:
    probabilities, label = drawn(5_000)
    assert rel.calibration_error(probabilities, label) < 0.03
    assert rel.fit_temperature(probabilities, label) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_the_temperature_that_was_applied_is_found(temperature: float) -> None:
    probabilities, label = drawn(5_000)
    wrong = rel.scaled(probabilities, 1 / temperature)
    found = rel.fit_temperature(wrong, label)
    assert found == pytest.approx(temperature, rel=0.05)
    assert rel.scaled(wrong, found) == pytest.approx(probabilities, abs=0.02)
    assert rel.log_loss(rel.scaled(wrong, found), label) < rel.log_loss(wrong, label)
    assert rel.calibration_error(wrong, label) > 0.08


def test_bins_and_coverage_count_clips() -> None:
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.4, 0.6], [0.55, 0.45]])
    label = np.array([0, 1, 1, 1])
    assert rel.reliability(probabilities, label) == [
        rel.Bin(pytest.approx(0.55), 0.0, 1), rel.Bin(pytest.approx(0.6), 1.0, 1),
        rel.Bin(pytest.approx(0.935), 0.5, 2),
    ]  # fmt: skip
    assert rel.coverage(probabilities, label, (0.0, 0.6, 0.99)) == [
        (0.0, 1.0, 0.5),
        (0.6, 0.75, pytest.approx(2 / 3)),
        (0.99, 0.0, None),
    ]


def test_extreme_probabilities_stay_finite() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert rel.scaled(probabilities, 0.01).tolist() == probabilities.tolist()
    assert np.isfinite(rel.log_loss(probabilities, np.array([1, 0])))


def test_intervals_are_those_of_groups_and_not_of_clips() -> None:
    """Ten clips of a group that are all right or all wrong tell as much as one clip."""
    right = np.random.default_rng(0).random(60) < 0.7
    low, high = rel.accuracy_interval(right, [str(i) for i in range(60)])
    assert low < right.mean() < high and 0.18 < high - low < 0.28  # 2 x 1.96 x sqrt(0.7 x 0.3 / 60) = 0.23
    many = rel.accuracy_interval(np.repeat(right, 10), [str(i) for i in range(60) for _ in range(10)])
    assert many == pytest.approx((low, high))
    assert np.diff(rel.accuracy_interval(np.repeat(right, 10), [str(i) for i in range(600)]))[0] < 0.1
