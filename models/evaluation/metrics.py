"""Accuracy, recall and F1 of clips, by scikit-learn's definitions, for the two scores that are never mixed.

`whole`: the model sees the whole clip. `slice_mean`: the mean of the probabilities of the clip's slices. Counted here in NumPy,
for scikit-learn's functions take milliseconds and search trials call them many times a second; the tests hold both equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ClipPredictions(NamedTuple):
    """One row per clip, in ascending clip number."""

    clip: np.ndarray  # int64 [clips]
    label: np.ndarray  # int64 [clips], -1 where unknown
    probabilities: np.ndarray  # float64 [clips, classes]


def by_clip(clip: np.ndarray, label: np.ndarray, probabilities: np.ndarray) -> ClipPredictions:
    """Mean probabilities over the samples of each clip.

    Shape: clip and label int64 [samples], probabilities [samples, classes].
    """
    numbers, first, where = np.unique(clip, return_index=True, return_inverse=True)
    sums = np.zeros((len(numbers), probabilities.shape[1]))
    np.add.at(sums, where, probabilities.astype(np.float64))
    return ClipPredictions(numbers, label[first], sums / np.bincount(where, minlength=len(numbers))[:, None])


def confusion(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true class, predicted class] (scikit-learn's `confusion_matrix`)."""
    return np.bincount(label * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def weighted(matrix: np.ndarray) -> dict[str, float]:
    """accuracy, recall and f1 of a confusion matrix, the last two weighted by number of clips (average="weighted")."""
    each = per_class(matrix)
    support = matrix.sum(1) / matrix.sum()
    return {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "recall": float(support @ np.array(each["recall"])),
        "f1": float(support @ np.array(each["f1"])),
    }


def per_class(matrix: np.ndarray) -> dict[str, list[Any]]:
    """precision, recall, f1 and support of each class; 0 where a class has no clip or is never predicted (zero_division=0)."""
    hits, true, predicted = np.diag(matrix).astype(float), matrix.sum(1), matrix.sum(0)
    values = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + predicted, 1),
        "support": true,
    }
    return {name: value.tolist() for name, value in values.items()}


def loss(predictions: ClipPredictions) -> float:
    """Mean negative log likelihood of the clips' labels under their mean probabilities, in nats."""
    likely = predictions.probabilities[np.arange(len(predictions.label)), predictions.label]
    return float(-np.log(np.maximum(likely, 1e-12)).mean())
