"""Intervals of scores by the bootstrap over groups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from shardwave.models.evaluation.bootstrap import intervals
from shardwave.models.evaluation.clip_csv import ClipRow
from shardwave.shards.clip import Clip

CLASSES = ["a", "b", "c"]


def rows(labels: np.ndarray, predicted: np.ndarray, groups: list[str | None]) -> list[ClipRow]:
    return [
        ClipRow(Clip(f"{number}.wav", group=group), "test", CLASSES[label], number, np.eye(3)[best])
        for number, (label, best, group) in enumerate(zip(labels, predicted, groups, strict=True))
    ]


def test_values_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    found = intervals(rows(labels, predicted, [None] * 200), CLASSES)
    assert found.scores["accuracy"].value == pytest.approx(accuracy_score(labels, predicted))
    assert found.scores["balanced_accuracy"].value == pytest.approx(
        balanced_accuracy_score(labels, predicted)
    )
    assert found.scores["macro_f1"].value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert (found.clips, found.groups, found.confusion.sum()) == (200, 200, 200)


def test_the_interval_of_independent_clips_is_that_of_a_proportion() -> None:
    labels = np.zeros(400, int)
    predicted = np.where(np.arange(400) < 300, 0, 1)
    _, low, high = intervals(rows(labels, predicted, [None] * 400), CLASSES).scores["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_clips_of_a_group_count_as_one() -> None:
    """Copies of each clip in its group must not make the interval narrower."""
    labels = np.zeros(40, int)
    predicted = np.where(np.arange(40) < 30, 0, 1)
    alone = intervals(rows(labels, predicted, [str(i) for i in range(40)]), CLASSES)
    copied = intervals(
        rows(np.repeat(labels, 10), np.repeat(predicted, 10), [str(i // 10) for i in range(400)]), CLASSES
    )
    assert copied.groups == 40 and copied.clips == 400
    assert copied.scores["accuracy"] == pytest.approx(alone.scores["accuracy"])


def test_unlabelled_clips_are_ignored() -> None:
    some = rows(np.array([0, 1]), np.array([0, 1]), ["x", "y"])
    found = intervals([*some, some[0]._replace(label="")], CLASSES)
    assert found.clips == 2 and found.scores["accuracy"] == (1, 1, 1)
