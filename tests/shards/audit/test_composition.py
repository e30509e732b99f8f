"""Each fault of the composition of a set is found, and a set without faults has none."""

from __future__ import annotations

import dataclasses

import numpy as np

from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.composition import composition_findings, silence_findings
from shardwave.shards.audit.shortcut import shortcut_findings


def kinds(audited: AuditedSet) -> set[str]:
    return {finding.finding for finding in composition_findings(audited)}


def large(audited: AuditedSet, count: int = 400) -> AuditedSet:
    """The clips of a set, repeated: classes, splits and files alternate, and every clip is its own group."""
    rows = np.arange(count) % len(audited)
    clips = [
        dataclasses.replace(audited.clips[row], path=f"{number}.wav")
        for number, row in enumerate(rows.tolist())
    ]
    return dataclasses.replace(
        audited, clips=clips, cls=np.arange(count) % 2, split=np.arange(count) // 2 % 2,
        group=[clip.path for clip in clips], own_group=np.ones(count, bool),
        seconds=np.full(count, 3.0) + np.arange(count) % 7 / 10, rate=np.full(count, 22_050),
    )  # fmt: skip


def test_a_balanced_set_has_no_findings(audited: AuditedSet) -> None:
    assert composition_findings(large(audited)) == [] and shortcut_findings(large(audited)) == []


def test_small_classes_dominant_groups_and_different_splits(audited: AuditedSet) -> None:
    every = large(audited)
    few = dataclasses.replace(every, cls=(np.arange(400) < 8).astype(np.int64))
    assert kinds(few) == {"small-class", }  # fmt: skip
    group = [
        ("one" if cls and number < 250 else path)
        for number, (cls, path) in enumerate(zip(every.cls, every.group, strict=True))
    ]
    assert kinds(dataclasses.replace(every, group=group)) == {"dominant-group"}
    assert kinds(
        dataclasses.replace(every, split=np.where(np.arange(400) % 8, every.cls, 1 - every.cls))
    ) == {"split-shares"}


def test_lengths_and_sample_rates(audited: AuditedSet) -> None:
    every = large(audited)
    seconds, rate = every.seconds.copy(), every.rate.copy()
    seconds[[3, 4]], rate[5] = (0.2, 40.0), 8_000
    found = composition_findings(dataclasses.replace(every, seconds=seconds, rate=rate))
    assert {(each.finding, each.path) for each in found} == {
        ("short-clip", "3.wav"), ("long-clip", "4.wav"), ("empty-band", "5.wav"),
    }  # fmt: skip
    assert "8,000 Hz" in next(each.evidence for each in found if each.finding == "empty-band")


def test_silence(audited: AuditedSet) -> None:
    silent = np.zeros(len(audited))
    silent[:2] = 1.0, 0.95
    assert [each.finding for each in silence_findings(audited, silent)] == ["silent", "mostly-silent"]


def test_a_class_that_the_file_format_or_the_duration_reveals_is_a_shortcut(audited: AuditedSet) -> None:
    every = large(audited)
    clips = [
        dataclasses.replace(clip, path=clip.path.replace(".wav", ".mp3") if cls else clip.path)
        for clip, cls in zip(every.clips, every.cls, strict=True)
    ]
    found = shortcut_findings(dataclasses.replace(every, clips=clips))
    assert found[0].severity == "high" and found[0].evidence.startswith(
        "file format alone predicts the class"
    )
    seconds = every.seconds + 0.5 * every.cls
    found = shortcut_findings(dataclasses.replace(every, seconds=seconds))
    assert [each.finding for each in found] == ["shortcut"] and found[0].evidence.startswith("duration alone")
