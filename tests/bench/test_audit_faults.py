"""The benchmark of planted faults, small: what is planted is what it says, and the audit finds the copies."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.bench.audit import audit
from shardwave.bench.audit_faults import plant, waveform_correlation
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip

RATE = 44_100


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Clip]]:
    """24 noises of 3 s in two classes and three folds."""
    audio = tmp_path_factory.mktemp("faults") / "audio"
    made = []
    for number in range(24):
        rng = np.random.default_rng(number)
        label = "high" if number % 2 else "low"
        (audio / label).mkdir(parents=True, exist_ok=True)
        spectrum = np.fft.rfft(rng.standard_normal(3 * RATE))
        hz = np.fft.rfftfreq(3 * RATE, 1 / RATE)
        spectrum[(hz < 100) | (hz > (6_000 if number % 2 else 2_000))] *= 0.01
        level = np.interp(np.arange(3 * RATE), np.linspace(0, 3 * RATE, 13), rng.uniform(0.1, 1, 13))
        samples = np.fft.irfft(spectrum, 3 * RATE) * level
        path = f"{label}/{number}.wav"
        soundfile.write(audio / path, 0.5 * samples / np.abs(samples).max(), RATE)
        made.append(Clip(path, label, fold=1 + number % 3))
    return audio, made


def test_the_audit_finds_planted_copies_in_other_folds(
    clips: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    audio, made = clips
    planted = plant(audio, made, tmp_path / "faulty", copies=5, flips=3)
    fold = {}
    with open(tmp_path / "faulty" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    fold = {row["path"]: row["fold"] for row in rows}
    label = {row["path"]: row["label"] for row in rows}
    assert len(rows) == 29 and len(planted.copies) == 5 and len(planted.labels) == 3
    assert all(fold[copy] != fold[original] for copy, original in planted.copies.items())
    assert all(label[path] != true for path, true in planted.labels.items())
    assert not set(planted.labels) & set(planted.copies.values())
    config = SpectrogramConfig(image_size=64, frequency_scale="mel", slices=0)
    options = BuildOptions(labels=tmp_path / "faulty" / "labels.csv", workers=1, min_shards=1)
    build(tmp_path / "faulty", tmp_path / "set", config, options)
    found = audit(tmp_path / "set", tmp_path / "audit")["findings"]
    pairs = {
        frozenset((each["path"], each["evidence"].removeprefix("of ").split(" (fold")[0]))
        for each in found
        if each["finding"] == "near-copy-across-splits"
    }
    assert pairs == {frozenset(pair) for pair in planted.copies.items()}


def test_waveforms_tell_copies_from_other_clips(clips: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    audio, made = clips
    planted = plant(audio, made, tmp_path / "faulty", copies=2, flips=0)
    for copy, original in planted.copies.items():
        assert waveform_correlation(tmp_path / "faulty" / copy, audio / original) > 0.8
    assert waveform_correlation(audio / made[0].path, audio / made[2].path) < 0.2
