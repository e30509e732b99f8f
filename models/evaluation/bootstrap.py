"""Confidence intervals of scores by the bootstrap over groups of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from shardwave.models.evaluation.clip_csv import ClipRow

SAMPLES = 2_000
LEVEL = 0.95
BATCH = 100  # bootstrap samples at a time, which bounds the memory


class Interval(NamedTuple):
    """A score with its confidence interval."""

    value: float
    low: float
    high: float


class Intervals(NamedTuple):
    """Scores of some clips."""

    scores: dict[str, Interval]  # accuracy, balanced_accuracy, macro_f1
    confusion: np.ndarray  # int64 [true class, predicted class]
    clips: int
    groups: int


def intervals(rows: Sequence[ClipRow], classes: Sequence[str], seed: int = 0) -> Intervals:
    """Compute accuracy, balanced accuracy and macro F1 with percentile intervals.

    Groups are drawn with replacement, since the clips of a group (recording, artist, speaker) are not
    independent; a clip without a group is a group of its own (Efron & Tibshirani 1993, chapter 13). The
    intervals do not contain the variation between trainings.

    Args:
        rows: Labelled clips; clips of other classes are ignored.
        classes: Names of the classes.
        seed: Seed of the drawing.
    """
    index = {name: number for number, name in enumerate(classes)}
    labelled = [row for row in rows if row.label in index]
    names = [row.source.group or f"clip {number}" for number, row in enumerate(labelled)]
    groups, group = np.unique(names, return_inverse=True)
    cells = [index[row.label] * len(classes) + int(row.probabilities.argmax()) for row in labelled]
    ones = np.ones(len(cells), np.int64)
    matrices = sparse.coo_array((ones, (group, cells)), shape=(len(groups), len(classes) ** 2)).tocsr()
    total = matrices.sum(axis=0).reshape(len(classes), -1)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(SAMPLES // BATCH):
        counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), BATCH)
        drawn.append(_scores((counts @ matrices).reshape(BATCH, len(classes), -1)))
    scores = {}
    for name, value in _scores(total[None]).items():
        low, high = np.nanpercentile([part[name] for part in drawn], (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
        scores[name] = Interval(float(value[0]), float(low), float(high))
    return Intervals(scores, total, len(labelled), len(groups))


def _scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the scores [samples] of confusion matrices [samples, classes, classes], as `metrics` does."""
    hits, support, predicted = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)
    recall = np.where(support > 0, hits / np.maximum(support, 1), np.nan)
    f1 = np.where(support + predicted > 0, 2 * hits / np.maximum(support + predicted, 1), np.nan)
    return {
        "accuracy": hits.sum(1) / support.sum(1),
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "macro_f1": np.nanmean(f1, axis=1),
    }
