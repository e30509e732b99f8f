"""Folds that keep groups whole and classes even, to the bit those of scikit-learn's StratifiedGroupKFold(shuffle=True).

The same rule (J. Wasikowski's: the groups of most uneven classes first, each into the fold that leaves the classes' shares most
even), computed for all folds of a group at once and for the classes that it has alone, and without scikit-learn's import, which
takes longer than a small build. tests/shards/test_stratify.py holds it against the original.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def folds(labels: Sequence[str], groups: Sequence[str], parts: int, seed: int) -> np.ndarray:
    """The fold of each clip, int64 [clips] from 0 to `parts` - 1; `parts` is at most the number of groups."""
    label, group = _codes(labels), _codes(groups)
    classes, count = int(label.max()) + 1, int(group.max()) + 1
    per_group = np.bincount(group * classes + label, minlength=count * classes).reshape(count, classes).astype(float)
    shuffled = np.arange(count)
    np.random.RandomState(seed).shuffle(shuffled)
    per_group = per_group[shuffled]
    spread = _Spread(np.bincount(label), parts)
    fold = np.empty(count, np.int64)
    for i in np.argsort(-np.std(per_group, axis=1), kind="stable").tolist():
        fold[shuffled[i]] = spread.add(per_group[i])
    return fold[group]


def _codes(names: Sequence[str]) -> np.ndarray:
    """The place of each name among the sorted different ones."""
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names], np.int64)


class _Spread:
    """The folds as they fill up. Sums run in the order in which NumPy adds up scikit-learn's arrays, [folds, classes] along the
    folds: one class after another, which needs two columns or more here wherever there are two classes or more.
    """

    def __init__(self, totals: np.ndarray, parts: int):
        self._totals = totals  # clips of each class
        self._counts = np.zeros((parts, len(totals)))  # of them in each fold
        self._sizes = [0] * parts
        self._deviation = np.zeros((parts, len(totals)))  # of each class's shares; the same row for each fold
        self._diagonal = np.arange(parts)

    def add(self, group: np.ndarray) -> int:
        """Put a group, so many clips of each class, into the fold that suits it best; returns that."""
        own = np.flatnonzero(group)
        columns = own if len(own) > 1 or len(group) == 1 else np.array([own[0], own[0] - 1])
        trial = np.repeat(self._counts[None, :, columns], len(self._counts), axis=0)  # [put into, fold, column]
        trial[self._diagonal, self._diagonal] += group[columns]
        self._deviation[:, columns] = changed = _deviation(trial / self._totals[columns])
        best, least, fewest = 0, np.inf, np.inf
        for i, uneven in enumerate((np.add.reduce(self._deviation, axis=1) / len(group)).tolist()):
            near = least < np.inf and abs(uneven - least) <= 1e-8 + 1e-5 * abs(least)  # as np.isclose has it
            if uneven < least or (near and self._sizes[i] < fewest):
                best, least, fewest = i, uneven, self._sizes[i]
        self._deviation[:, columns] = changed[best]
        self._counts[best] += group
        self._sizes[best] += int(group.sum())
        return best


def _deviation(values: np.ndarray) -> np.ndarray:
    """`np.std(values, axis=1)`, to the bit and in half the time."""
    values -= np.add.reduce(values, axis=1, keepdims=True) / values.shape[1]
    values *= values
    return np.sqrt(np.add.reduce(values, axis=1) / values.shape[1])
