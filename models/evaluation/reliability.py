"""Reliability of predictions: calibration, coverage at a threshold, and confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 10
DRAWS = 2_000  # bootstrap samples
LEAST = 1e-12  # probability, so that its logarithm is finite
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Bin(NamedTuple):
    """Clips whose greatest probability lies in one interval."""

    confidence: float  # mean of the greatest probabilities
    accuracy: float
    clips: int


class Coverage(NamedTuple):
    """Clips that a threshold accepts."""

    threshold: float
    coverage: float  # fraction of the clips with at least this probability
    accuracy: float | None  # of these clips; None without any


def reliability(probabilities: np.ndarray, label: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Return the bins of a reliability diagram that have clips.

    Args:
        probabilities: float64 [clips, classes].
        label: Class index of each clip, int64 [clips].
        bins: Number of intervals of equal width.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == label
    number = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        Bin(float(confidence[chosen].mean()), float(correct[chosen].mean()), int(chosen.sum()))
        for chosen in (number == each for each in np.unique(number))
    ]


def calibration_error(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy over the bins.

    Args:
        probabilities: float64 [clips, classes].
        label: Class index of each clip, int64 [clips].
    """
    parts = reliability(probabilities, label)
    return sum(part.clips * abs(part.confidence - part.accuracy) for part in parts) / max(1, len(label))


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities with their logarithms divided by a temperature, normalised to the sum 1.

    Args:
        probabilities: [clips, classes].
        temperature: Positive; above 1 makes the probabilities more equal.
    """
    logarithm = np.log(np.maximum(probabilities, LEAST)) / temperature
    powers = np.exp(logarithm - logarithm.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def log_loss(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Return the mean negative log likelihood of the labels in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(label)), label], LEAST)).mean())


def fit_temperature(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Return the temperature that minimises the log loss (Guo et al. 2017), between 1/20 and 20.

    Args:
        probabilities: Probabilities of clips that were not trained on, float64 [clips, classes].
        label: Class index of each clip, int64 [clips].
    """
    from scipy.optimize import minimize_scalar

    bound = np.log(20)
    found = minimize_scalar(
        lambda value: log_loss(scaled(probabilities, float(np.exp(value))), label),
        bounds=(-bound, bound),
        method="bounded",
    )
    return float(np.exp(found.x))


def coverage(
    probabilities: np.ndarray, label: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> list[Coverage]:
    """Compute how many clips a threshold of `--reject-below` keeps, and the accuracy of these clips.

    Args:
        probabilities: Class probabilities, float [clips, classes].
        label: Index of the true class, int [clips].
        thresholds: Thresholds of the greatest probability of a clip.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == label
    rows = []
    for threshold in thresholds:
        kept = confidence >= threshold
        accuracy = float(correct[kept].mean()) if kept.any() else None
        rows.append(Coverage(threshold, float(kept.mean()), accuracy))
    return rows


def accuracy_interval(
    correct: np.ndarray, groups: Sequence[str], share: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap confidence interval of the accuracy (percentiles; groups are drawn, not clips).

    Clips of one group are not independent, so drawing clips would give too narrow an interval.

    Args:
        correct: Whether each clip is classified correctly, bool [clips].
        groups: Group of each clip.
        share: Probability of the interval.
        seed: Seed of the draws.
    """
    _, group = np.unique(np.asarray(groups, object).astype(str), return_inverse=True)
    clips = np.bincount(group).astype(np.float64)
    hits = np.bincount(group, weights=correct.astype(np.float64))
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(clips), np.full(len(clips), 1 / len(clips)), DRAWS)
    accuracy = (drawn @ hits) / np.maximum(drawn @ clips, 1)
    low, high = np.quantile(accuracy, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
