"""Audit of a shard set: all checks, without output files."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import numpy as np

from shardwave.models.audit.label_errors import held_out_probabilities, label_findings
from shardwave.shards.audit import composition, copies, shortcut, sound
from shardwave.shards.audit.audited_set import AuditedSet, audited_set
from shardwave.shards.audit.copies import Pair
from shardwave.shards.audit.finding import Finding, ordered
from shardwave.shards.audit.traces import traces
from shardwave.shards.read.open_set import open_set

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Args:
        audited: The clips of the set.
        findings: All findings, by severity.
        pairs: Pairs of copies.
        threshold: Least similarity of near copies, or greatest distance for feature vectors.
        unchecked: Checks that could not be made, with the reason and the remedy.
        seconds: Time of each check.
    """

    audited: AuditedSet
    findings: list[Finding]
    pairs: list[Pair]
    threshold: float
    unchecked: list[str]
    seconds: dict[str, float]

    def groups(self) -> list[str]:
        """Return the suggested group of every clip: copies are in one group."""
        return copies.joined_groups(self.audited, self.pairs)


def examine(set_path: Path | str, run: Path | None = None, audio: Path | None = None) -> Audit:
    """Run all checks of an audit.

    Args:
        set_path: Folder or URL of the set.
        run: Run folder of a training on the set, for probable label errors; best one of `--folds all`.
        audio: Folder of the set's audio files, for exact digests, clipping and offsets.

    Raises:
        UsageError: The run or the audio does not belong to the set, or cleanlab is missing.
        ShardwaveError: The set or the run is damaged.
    """
    begin = time.perf_counter()
    seconds: dict[str, float] = {}

    def record_seconds(name: str) -> None:
        seconds[name] = time.perf_counter() - begin - sum(seconds.values())
        _log.info("audit: %s took %.2f s", name, seconds[name])

    audited = audited_set(open_set(set_path))
    unchecked, labels = [], []
    if run is not None:  # first: a wrong run is noticed before the long checks
        rows, probabilities = held_out_probabilities(audited, run)
        labels = label_findings(audited, rows, probabilities)
        missing = int((audited.cls >= 0).sum()) - len(rows)
        if missing:
            unchecked.append(
                f"labels of {missing} clips, which the run was trained on: use a run of train --folds all"
            )
    else:
        unchecked.append("labels: give a run of train --folds all with --run")
    record_seconds("labels")
    digests: list[str | None] = list(copies.content_digests(audited))
    evidence, sound_findings = "the same stored image and features", []
    silent = np.zeros(len(audited), bool)
    if audio is not None:
        measured = sound.sounds(audited, audio)
        sound_findings = sound.sound_findings(audited, measured)
        digests = [each.digest or None for each in measured]
        silent |= [each.peak < sound.QUIET for each in measured]
        evidence = "the same decoded samples"
    elif audited.shards.config is not None:
        unchecked.append("clipping, constant offsets and levels: give the audio with --audio")
    record_seconds("audio")
    trace = traces(audited)
    if trace is not None:
        silent |= trace.silent >= 1
    exact = copies.exact_pairs(
        [None if quiet else digest for digest, quiet in zip(digests, silent, strict=True)],
        audited.split,
        evidence,
    )
    repeated = {pair.other for pair in exact}
    rows = np.array([row for row in range(len(audited)) if row not in repeated and not silent[row]], np.int64)
    if trace is not None:
        near, threshold = copies.near_pairs(audited, trace, rows)
    elif "features.npy" in audited.shards.fields:
        features = audited.view.gather(np.arange(len(audited)), ("features.npy",))["features.npy"]
        near, threshold = copies.near_vectors(features, rows)
    else:
        near, threshold = [], 0.0
        unchecked.append("near copies: the set has neither images nor features")
    record_seconds("copies")
    pairs = [*exact, *near]
    quiet = composition.silence_findings(audited, trace.silent) if trace is not None else []
    known_silent = {finding.path for finding in sound_findings if finding.finding == "silent"}
    findings = [
        *copies.copy_findings(audited, pairs),
        *shortcut.shortcut_findings(audited),
        *labels,
        *composition.composition_findings(audited),
        *(finding for finding in quiet if finding.path not in known_silent),
        *sound_findings,
    ]
    record_seconds("composition")
    return Audit(audited, ordered(findings), pairs, threshold, unchecked, seconds)
