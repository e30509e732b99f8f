"""Exact and near copies among the clips of a set."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from shardwave.shards.audit.alignment import agreement
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.finding import Finding
from shardwave.shards.audit.neighbours import similar_pairs, whitened
from shardwave.shards.audit.traces import Traces

BACKGROUND = 20_000  # random pairs of different classes, from which the threshold is computed
EXPECTED = 0.1  # pairs of unrelated clips above the threshold, by extrapolation over all pairs
TAIL = (0.1, 0.02)  # fractions of the background above the two points of the exponential tail
FEW = 100  # clips up to which copies may be a large part of the background: the threshold is then LOWEST
LOWEST, HIGHEST = 0.55, 0.9  # bounds of the threshold
NEAREST = 0.4  # feature vectors nearer than this fraction of the median nearest distance are copies
CHUNK = 1_024  # samples that are digested at a time


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two clips with the same or nearly the same sound.

    Args:
        one: Row of the first clip.
        other: Row of the second clip.
        exact: Whether the samples (or the stored arrays) are equal.
        evidence: Similarity, as text.
        similarity: 1 for exact copies.
    """

    one: int
    other: int
    exact: bool
    evidence: str
    similarity: float = 1.0


def content_digests(audited: AuditedSet) -> list[str]:
    """Return the BLAKE3 digest of the stored arrays of each clip.

    Clips with the same samples have the same arrays, whatever their containers and tags are.
    """
    fields = [name for name in audited.shards.fields if name not in ("cls", "json")]
    digests = []
    for start in range(0, len(audited), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(audited)))
        arrays = audited.view.gather(rows, fields)
        for row in range(len(rows)):
            digest = blake3(f"{audited.seconds[start + row]:.6f}".encode())
            for name in fields:
                digest.update(np.ascontiguousarray(arrays[name][row]).tobytes())
            digests.append(digest.hexdigest())
    return digests


def exact_pairs(digests: Sequence[str | None], split: np.ndarray, evidence: str) -> list[Pair]:
    """Return one pair for each clip whose digest an earlier clip has.

    Its partner is the first clip with the digest; a clip of another split is preferred.

    Args:
        digests: Digest of each clip; None: not compared, for example because the clip is silent.
        split: Split of each clip.
        evidence: Text for the pairs.
    """
    clips_by_digest: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest is not None:
            clips_by_digest[digest].append(row)
    pairs = []
    for rows in clips_by_digest.values():
        for row in rows[1:]:
            partner = next((other for other in rows if other < row and split[other] != split[row]), rows[0])
            pairs.append(Pair(partner, row, True, evidence))
    return pairs


def near_pairs(audited: AuditedSet, traces: Traces, rows: np.ndarray) -> tuple[list[Pair], float]:
    """Find clips that differ in level, bit rate, offset or trimming only.

    Pairs with similar statistics are aligned (see `alignment`). The threshold lies where an exponential tail,
    fitted to the similarities of clips of different classes, predicts `EXPECTED` pairs among all.

    Args:
        audited: The set.
        traces: Traces of its clips.
        rows: Clips to compare, without silent clips and with one of each group of exact copies.

    Returns:
        The pairs, the most similar first, and the threshold of the correlation coefficient.
    """
    if len(rows) < 2:
        return [], HIGHEST
    pairs = rows[similar_pairs(whitened(np.stack([_statistics(traces.values[row]) for row in rows])))]
    threshold = _threshold(audited, traces, rows)
    found = agreement(traces, pairs)
    chosen = np.flatnonzero(found.similarity >= threshold)
    chosen = chosen[np.argsort(-found.similarity[chosen], kind="stable")]
    near = []
    for i in chosen.tolist():
        shift = f", {abs(found.offset[i]):.2f} s apart" if abs(found.offset[i]) >= traces.frame else ""
        text = f"correlation {found.similarity[i]:.2f} (threshold {threshold:.2f}){shift}"
        near.append(Pair(int(pairs[i, 0]), int(pairs[i, 1]), False, text, float(found.similarity[i])))
    return near, threshold


def _statistics(trace: np.ndarray) -> np.ndarray:
    """Return correlations between the bands of a trace and their log variances: independent of the offset."""
    values = trace[:, trace.any(0)].astype(np.float32)
    covariance = values @ values.T / max(1, values.shape[1])
    deviation = np.sqrt(np.diag(covariance)) + 5.0  # 5 of 127: a third of a dB
    correlation = covariance / deviation / deviation[:, None]
    return np.concatenate([correlation[np.triu_indices(len(trace), 1)], 2 * np.log(deviation)])


def _threshold(audited: AuditedSet, traces: Traces, rows: np.ndarray) -> float:
    """Compute the least correlation of near copies from pairs that are no copies."""
    generator = np.random.default_rng(0)
    draws = rows[generator.integers(0, len(rows), (4 * BACKGROUND, 2))]
    labels = audited.cls[draws]
    unrelated = draws[:, 0] != draws[:, 1]
    if len(np.unique(audited.cls[rows])) > 1:
        unrelated &= labels[:, 0] != labels[:, 1]
    draws = draws[unrelated][:BACKGROUND]
    if len(rows) < FEW or not len(draws):
        return LOWEST
    # The highest values may belong to copies with different or no labels: the tail is fitted below them
    start, end = np.quantile(agreement(traces, draws).similarity, [1 - share for share in TAIL])
    scale = float(end - start) / math.log(TAIL[0] / TAIL[1])
    pairs = len(rows) * (len(rows) - 1) / 2
    limit = float(start) + scale * max(0.0, math.log(TAIL[0] * pairs / EXPECTED))
    return float(np.clip(limit, LOWEST, HIGHEST))


def near_vectors(vectors: np.ndarray, rows: np.ndarray) -> tuple[list[Pair], float]:
    """Find near copies among feature vectors, for sets without images.

    Copies are nearer to each other than `NEAREST` times the median distance of a clip to its nearest
    neighbour. The distance is the root mean square of the differences of the standardised features.

    Args:
        vectors: Features of all clips, [clips, features].
        rows: Clips to compare.

    Returns:
        The pairs, the nearest first, and the threshold of the distance.
    """
    if len(rows) < 3:
        return [], 0.0
    values = np.asarray(vectors[rows], np.float64)
    values = np.clip((values - values.mean(0)) / np.maximum(values.std(0), 1e-9), -5, 5)
    pairs = similar_pairs(whitened(values))
    distance = np.concatenate([
        np.sqrt(((values[part[:, 0]] - values[part[:, 1]]) ** 2).mean(1))
        for part in np.array_split(pairs, max(1, len(pairs) // CHUNK))
    ])  # fmt: skip
    nearest = np.full(len(rows), np.inf)
    for column in (0, 1):
        np.minimum.at(nearest, pairs[:, column], distance)
    threshold = NEAREST * float(np.median(nearest[np.isfinite(nearest)]))
    chosen = np.flatnonzero(distance < threshold)
    chosen = chosen[np.argsort(distance[chosen], kind="stable")]
    near = []
    for i in chosen.tolist():
        text = f"distance of the features {distance[i]:.3g} (threshold {threshold:.3g})"
        one, other = rows[pairs[i]].tolist()
        near.append(Pair(one, other, False, text, 1 - float(distance[i]) / max(threshold, 1e-12)))
    return near, threshold


def copy_findings(audited: AuditedSet, pairs: Sequence[Pair]) -> list[Finding]:
    """Return one finding per pair of copies: pairs across splits first, then pairs with different labels.

    Near copies in one split that are in one group already, with one label, are no finding.
    """
    across, conflicts, within = [], [], []
    for pair in pairs:
        one, other = pair.one, pair.other
        same_split = audited.split[one] == audited.split[other]
        same_label = audited.cls[one] == audited.cls[other]
        if same_split and same_label and audited.group[one] == audited.group[other] and not pair.exact:
            continue
        kind = "exact-copy" if pair.exact else "near-copy"
        places = f"{audited.split_name(other)} and {audited.split_name(one)}"
        text = f"of {audited.clips[one].name} ({places}): {pair.evidence}"
        name, rows = audited.clips[other].name, (other, one)
        if not same_label:
            labels = " and ".join(repr(audited.label(row) or "unlabelled") for row in (other, one))
            advice = "listen, correct the label, and delete one of them"
            conflicts.append(
                Finding(f"{kind}-other-label", "high", f"{text}; labels {labels}", advice, name, rows)
            )
        elif not same_split:
            advice = "put both into one group (shard --groups groups.csv), or delete one"
            across.append(Finding(f"{kind}-across-splits", "high", text, advice, name, rows))
        else:
            advice = "delete one, or keep both in one group (shard --groups groups.csv)"
            within.append(Finding(kind, "low", text, advice, name, rows))
    return [*across, *conflicts, *within]


def joined_groups(audited: AuditedSet, pairs: Sequence[Pair]) -> list[str]:
    """Return a group for every clip, such that copies and the clips of their groups are in one group.

    Clips without copies keep their group. A joined group has the name of its first clip's group.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.get(name, name)) != name:
            parent[name] = parent.get(above, above)
            name = above
        return name

    for pair in pairs:
        one, other = root(audited.group[pair.one]), root(audited.group[pair.other])
        parent[max(one, other)] = min(one, other)
    return [root(name).split(" ", 1)[1] for name in audited.group]
