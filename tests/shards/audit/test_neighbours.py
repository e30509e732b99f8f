"""The blocked search returns the pairs that the full matrix of similarities has."""

from __future__ import annotations

import numpy as np
import pytest

from shardwave.shards.audit import neighbours


def vectors(count: int) -> np.ndarray:
    values = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_blocks_return_every_pair_above_the_threshold_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 64)
    monkeypatch.setattr(neighbours, "_threshold", lambda *_: 0.8)
    values = vectors(300)
    found = neighbours.similar_pairs(values, exhaustive=0)
    one, other = np.nonzero(np.triu(values @ values.T, 1) > 0.8)
    assert sorted(map(tuple, found.tolist())) == sorted(zip(one.tolist(), other.tolist(), strict=True))


def test_the_threshold_leaves_as_many_pairs_as_requested() -> None:
    found = neighbours.similar_pairs(vectors(1_000), per_clip=4)
    assert 3_200 < len(found) < 4_800


def test_few_vectors_are_all_compared() -> None:
    assert len(neighbours.similar_pairs(vectors(20))) == 190


def test_whitened_vectors_have_length_one_and_no_correlation() -> None:
    values = np.random.default_rng(0).normal(size=(500, 6)) @ np.diag([1, 5, 9, 1, 1, 1])
    values[:, 3] = values[:, 0]  # adds no component
    white = neighbours.whitened(values)
    assert white.shape == (500, 5) and np.allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)
    assert np.abs(np.corrcoef(white.T) - np.eye(5)).max() < 0.15
