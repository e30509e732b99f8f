"""Levels of the audio files: clipping, offset and silence; digests that no container changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.common.errors import UsageError
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.sound import Sound, measure, sound_findings, sounds
from shardwave.shards.clip import Clip

RATE = 22_050


def measured(path: Path, samples: np.ndarray, clip: Clip | None = None) -> Sound:
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return measure(path, clip or Clip(path.name), RATE)


def test_digests_are_those_of_the_samples(tmp_path: Path) -> None:
    samples = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, RATE) * 32_768) / 32_768
    digests = {measured(tmp_path / name, samples).digest for name in ("a.wav", "b.flac", "c.aiff")}
    stereo = measured(tmp_path / "d.wav", np.stack([samples, samples], axis=1)).digest
    assert digests == {stereo}
    assert measured(tmp_path / "e.wav", 0.5 * samples).digest not in digests
    assert measured(tmp_path / "f.wav", samples, Clip("f.wav", start=0.5)).digest not in digests


def test_clipping_offset_and_silence(audited: AuditedSet, tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    cases = [
        measured(tmp_path / "clipped.wav", np.clip(1.5 * tone, -1, 1)),
        measured(tmp_path / "loud.wav", 0.9999 * tone),  # reaches full scale without a run of equal samples
        measured(tmp_path / "offset.wav", 0.3 * tone + 0.1),
        measured(tmp_path / "silent.wav", 1e-4 * tone),
        measure(tmp_path / "missing.wav", Clip("missing.wav"), RATE),
    ]
    found = [(each.clips[0], each.finding, each.severity) for each in sound_findings(audited, cases)]
    assert found == [
        (0, "clipped", "medium"),
        (2, "dc-offset", "low"),
        (3, "silent", "medium"),
        (4, "unreadable", "low"),
    ]


def test_sounds_are_measured_in_the_order_of_the_clips(audited: AuditedSet, folder: Path) -> None:
    digests = [each.digest for each in sounds(audited, folder)]
    row = {clip.path: number for number, clip in enumerate(audited.clips)}
    assert digests[row["high/same.flac"]] == digests[row["high/7.wav"]]
    assert len(set(digests)) == len(audited) - 1


def test_a_folder_without_the_files_is_refused(audited: AuditedSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has none of the set's files"):
        sounds(audited, tmp_path)
