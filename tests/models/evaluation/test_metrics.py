"""Our counts against scikit-learn's functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from shardwave.models.evaluation import metrics as scores


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 8))
    true, predicted = rng.integers(0, classes, 40), rng.integers(0, classes, 40)
    if seed % 2:  # a class never predicted, and one without a clip
        predicted[predicted == 0] = 1
        true[true == classes - 1] = 0
    values = scores.ScoreSet()
    scores.add_scores(
        values, "val_full", scores.ClipPredictions(np.arange(40), true, np.eye(classes)[predicted])
    )
    labels = list(range(classes))
    assert (values.confusion["val_full"] == metrics.confusion_matrix(true, predicted, labels=labels)).all()
    assert values.scores["val_full_accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    _, recall, f1, _ = metrics.precision_recall_fscore_support(
        true, predicted, average="weighted", zero_division=0
    )
    assert values.scores["val_full_recall"] == pytest.approx(recall) and values.scores[
        "val_full_f1"
    ] == pytest.approx(f1)
    macro = metrics.f1_score(true, predicted, average="macro", zero_division=0)
    assert values.scores["val_full_macro_f1"] == pytest.approx(macro)
    balanced = metrics.recall_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    assert values.scores["val_full_balanced_accuracy"] == pytest.approx(balanced)
    each: Any = values.per_class["val_full"]
    found = metrics.precision_recall_fscore_support(
        true, predicted, labels=labels, average=None, zero_division=0
    )
    for name, column in zip(("precision", "recall", "f1", "support"), found, strict=True):
        assert each[name] == pytest.approx(column)


def test_slice_mean_is_the_mean_of_probabilities_and_not_a_vote() -> None:
    clip = np.array([7, 3, 7, 7])
    label = np.array([1, 0, 1, 1])
    probabilities = np.array(
        [[0.6, 0.4], [0.9, 0.1], [0.6, 0.4], [0.0, 1.0]]
    )  # two of three slices vote 0, the mean says 1
    found = scores.by_clip(clip, label, probabilities)
    assert found.clip.tolist() == [3, 7] and found.label.tolist() == [0, 1]
    assert found.probabilities.argmax(1).tolist() == [0, 1]
    assert found.probabilities[1] == pytest.approx([0.4, 0.6])


def test_loss_is_the_negative_log_likelihood() -> None:
    found = scores.ClipPredictions(np.array([0, 1]), np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]]))
    assert scores.loss(found) == pytest.approx(metrics.log_loss([0, 1], found.probabilities))
