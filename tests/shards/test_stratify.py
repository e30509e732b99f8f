from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from shards.stratify import folds


def scikit(labels: list[str], groups: list[str], parts: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        fold = np.empty(len(labels), np.int64)
        for number, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
            fold[held] = number
    return fold


@pytest.mark.parametrize("parts", [2, 5, 7, 8, 10, 20])
@pytest.mark.parametrize("classes", [1, 2, 9, 150])
@pytest.mark.parametrize("clips_a_group", [1, 3, 12])
def test_the_folds_are_scikit_learns(parts: int, classes: int, clips_a_group: int) -> None:
    seed = 1000 * parts + 10 * classes + clips_a_group
    random = np.random.default_rng(seed)
    count = int(random.integers(6 * parts, 250))
    weights = random.dirichlet(np.full(classes, random.choice([0.3, 3.0, 1e6])))  # from classes of one clip to equal ones
    labels = [f"class {i}" for i in random.choice(classes, count, p=weights)]
    groups = [f"group {i}" for i in random.integers(0, max(parts, count // clips_a_group), count)]
    if clips_a_group == 1:
        groups = [f"path {i}" for i in random.permutation(count)]
    if len(set(groups)) < parts or np.unique(labels, return_counts=True)[1].max() < parts:
        pytest.skip("scikit-learn refuses these")
    assert (folds(labels, groups, parts, seed) == scikit(labels, groups, parts, seed)).all()
