"""A set of noises, some of which are copies at other levels, bit rates, offsets and in other containers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.audit.audited_set import AuditedSet, audited_set
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.read.open_set import open_set

RATE = 22_050
CONFIG = SpectrogramConfig(image_size=64, frequency_scale="mel", slices=0)
COPIES = {"low/copy 0.wav": "low/3.wav", "low/copy 1.mp3": "low/4.wav", "high/copy 2.wav": "high/5.wav"}
SAME = ("high/same.flac", "high/7.wav")


def noise(seed: int, low: float, high: float, seconds: float = 3.0) -> np.ndarray:
    """Noise between two frequencies (Hz) whose level changes at random."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum[(hz < low) | (hz > high)] *= 0.01
    level = np.interp(np.arange(count), np.linspace(0, count, 13), rng.uniform(0.1, 1, 13))
    samples = np.fft.irfft(spectrum, count) * level
    return 0.5 * samples / np.abs(samples).max()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 14 noises, each with 3 near copies and an exact one, and labels with two folds."""
    audio = tmp_path_factory.mktemp("audit") / "audio"
    rows = []
    for name, low, high in (("low", 100, 1_500), ("high", 800, 6_000)):
        (audio / name).mkdir(parents=True)
        for i in range(14):
            soundfile.write(
                audio / name / f"{i}.wav", noise(i + 100 * len(name), low, high), RATE, subtype="PCM_16"
            )
            rows.append((f"{name}/{i}.wav", name, 1 + i % 2))
    for number, (copy, original) in enumerate(COPIES.items(), 1):
        samples, _ = soundfile.read(audio / original)
        soundfile.write(audio / copy, 10 ** (-number / 3) * samples[int(0.3 * number * RATE) :], RATE)
        fold = next(fold for path, _, fold in rows if path == original)
        rows.append((copy, copy.split("/")[0], 3 - fold))
    samples, _ = soundfile.read(audio / SAME[1], dtype="int16")
    soundfile.write(audio / SAME[0], samples, RATE)
    rows.append((SAME[0], "low", 1))
    lines = [f"{path},{label},{fold}" for path, label, fold in rows]
    (audio / "labels.csv").write_text("\n".join(["path,label,fold", *lines]) + "\n")
    return audio


@pytest.fixture(scope="session")
def noises(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of the folder; read it only."""
    out = tmp_path_factory.mktemp("audit") / "set"
    build(folder, out, CONFIG, BuildOptions(labels=folder / "labels.csv", workers=1, min_shards=1))
    return out


@pytest.fixture(scope="session")
def audited(noises: Path) -> AuditedSet:
    return audited_set(open_set(noises))
