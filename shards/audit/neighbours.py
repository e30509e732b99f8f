"""The most similar pairs of many vectors, by a blocked matrix product."""

from __future__ import annotations

import numpy as np

DIMENSIONS = 64  # of the vectors that are compared
CLIPS_PER_DIMENSION = 8  # at least: whitened vectors of as many dimensions as clips are all equally distant
BLOCK = 2_048  # rows and columns of a block of the product
SAMPLE = 2_000_000  # random pairs from which the threshold is estimated
PER_CLIP = 4.0  # pairs that are returned, on average
EXHAUSTIVE = 150.0  # pairs per clip up to which all are returned


def whitened(vectors: np.ndarray) -> np.ndarray:
    """Project vectors onto their principal components, all scaled to variance 1, and normalise their length.

    Args:
        vectors: [clips, values].

    Returns:
        float32 [clips, at most DIMENSIONS]; a clip whose vector is the mean has a vector of zeros.
    """
    centred = np.asarray(vectors, np.float64) - vectors.mean(0)
    centred /= np.maximum(centred.std(0), 1e-9)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    chosen = np.argsort(values)[::-1][: min(DIMENSIONS, max(1, len(centred) // CLIPS_PER_DIMENSION))]
    chosen = chosen[values[chosen] > 1e-9 * values.max()]
    projected = centred @ (axes[:, chosen] / np.sqrt(values[chosen]))
    length = np.linalg.norm(projected, axis=1, keepdims=True)
    return (projected / np.maximum(length, 1e-9)).astype(np.float32)


def similar_pairs(
    vectors: np.ndarray, per_clip: float = PER_CLIP, *, exhaustive: float = EXHAUSTIVE, seed: int = 0
) -> np.ndarray:
    """Return about `per_clip` pairs per vector with the highest cosine similarity.

    All pairs are returned if there are few. Otherwise the threshold is the quantile of the similarities of
    random pairs that leaves that many. Memory is bounded by the block, not by the number of pairs.

    Args:
        vectors: float32 [clips, values] of length 1.
        per_clip: Average number of pairs per vector.
        exhaustive: All pairs are returned if there are at most this many per vector.
        seed: Seed of the random pairs.

    Returns:
        int64 [pairs, 2], the lower row first.
    """
    count = len(vectors)
    total = count * (count - 1) // 2
    if total <= exhaustive * count:
        return np.stack(np.triu_indices(count, 1), axis=1)
    threshold = _threshold(vectors, min(1.0, per_clip * count / total), seed)
    found = []
    for top in range(0, count, BLOCK):
        rows = vectors[top : top + BLOCK]
        for left in range(top, count, BLOCK):
            near = np.flatnonzero(rows @ vectors[left : left + BLOCK].T > threshold)
            width = min(BLOCK, count - left)
            pairs = np.stack([top + near // width, left + near % width], axis=1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]] if top == left else pairs)
    return np.concatenate(found)


def _threshold(vectors: np.ndarray, share: float, seed: int) -> float:
    """Estimate the cosine similarity that a share of all pairs exceeds."""
    generator = np.random.default_rng(seed)
    one = generator.integers(0, len(vectors), SAMPLE)
    other = (one + generator.integers(1, len(vectors), SAMPLE)) % len(vectors)
    similarity = np.empty(SAMPLE, np.float32)
    for start in range(0, SAMPLE, 1 << 17):
        part = slice(start, start + (1 << 17))
        similarity[part] = np.einsum("ij,ij->i", vectors[one[part]], vectors[other[part]])
    return float(np.quantile(similarity, 1 - share))
