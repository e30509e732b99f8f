"""Copies are found whatever their level, bit rate, offset and container are, and nothing else is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shardwave.shards.audit import copies, neighbours
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.copies import Pair
from shardwave.shards.audit.traces import traces

COPIES = {("low/3.wav", "low/copy 0.wav"), ("low/4.wav", "low/copy 1.mp3"), ("high/5.wav", "high/copy 2.wav")}
SAME = ("high/7.wav", "high/same.flac")


def paths(audited: AuditedSet, pairs: list[Pair]) -> set[tuple[str, ...]]:
    return {tuple(sorted((audited.clips[pair.one].path, audited.clips[pair.other].path))) for pair in pairs}


def test_near_copies_are_found_without_false_pairs(audited: AuditedSet) -> None:
    traced = traces(audited)
    assert traced is not None
    digests = copies.content_digests(audited)
    exact = copies.exact_pairs(digests, audited.split, "equal")
    assert paths(audited, exact) == {SAME}
    rows = np.array([row for row in range(len(audited)) if row != exact[0].other])
    near, threshold = copies.near_pairs(audited, traced, rows)
    assert paths(audited, near) == COPIES and 0.55 <= threshold < 0.9


def test_near_copies_are_found_among_the_most_similar_pairs_too(
    audited: AuditedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in large sets, in which only the pairs with similar statistics are aligned."""
    traced = traces(audited)
    assert traced is not None
    every = neighbours.similar_pairs
    monkeypatch.setattr(copies, "similar_pairs", lambda vectors: every(vectors, per_clip=5, exhaustive=0))
    near, _ = copies.near_pairs(audited, traced, np.arange(len(audited)))
    assert paths(audited, near) == {*COPIES, SAME}


def test_copies_are_found_without_labels(audited: AuditedSet) -> None:
    """The pairs from which the threshold follows then contain the copies themselves."""
    traced = traces(audited)
    assert traced is not None
    unlabelled = dataclasses.replace(audited, cls=np.full(len(audited), -1))
    near, threshold = copies.near_pairs(unlabelled, traced, np.arange(len(audited)))
    assert paths(audited, near) == {*COPIES, SAME} and threshold == copies.LOWEST


def test_findings_name_pairs_across_splits_first_and_conflicting_labels(audited: AuditedSet) -> None:
    row = {clip.path: number for number, clip in enumerate(audited.clips)}
    pairs = [
        Pair(row["low/1.wav"], row["low/3.wav"], False, "within"),
        Pair(row[SAME[0]], row[SAME[1]], True, "equal"),
        Pair(row["low/3.wav"], row["low/copy 0.wav"], False, "across"),
    ]
    found = copies.copy_findings(audited, pairs)
    assert [(each.finding, each.severity) for each in found] == [
        ("near-copy-across-splits", "high"), ("exact-copy-other-label", "high"), ("near-copy", "low"),
    ]  # fmt: skip
    assert "fold" in found[0].evidence and "labels 'low' and 'high'" in found[1].evidence


def test_joined_groups_hold_copies_of_copies(audited: AuditedSet) -> None:
    pairs = [Pair(3, 9, False, ""), Pair(9, 1, False, ""), Pair(5, 6, True, "")]
    groups = copies.joined_groups(audited, pairs)
    assert groups[3] == groups[9] == groups[1] and groups[5] == groups[6]
    assert len(set(groups)) == len(audited) - 3


def test_near_vectors_are_copies_if_they_are_nearer_than_neighbours_usually_are() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(120, 20))
    vectors[7] = vectors[100] + 0.02
    near, _ = copies.near_vectors(vectors, np.arange(120))
    assert [{pair.one, pair.other} for pair in near] == [{7, 100}]
