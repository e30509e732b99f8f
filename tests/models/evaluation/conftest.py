"""Runs of all networks on one set of generated clips, with images and features."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions

RATE = 22_050


def tone(pitch: float, seconds: float, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.normal(size=len(time))


@pytest.fixture(scope="session")
def tone_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two classes, low and high tones of one second."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for label, pitch in (("high tone", 4000.0), ("low", 300.0)):
        (folder / "audio" / label).mkdir(parents=True)
        for number in range(8):
            samples = tone(pitch * rng.uniform(0.8, 1.2), 1.0, rng)
            soundfile.write(folder / "audio" / label / f"clip {number}.wav", samples, RATE)
    config = SpectrogramConfig(image_size=32, frequency_scale="mel", slices=2, features=True)
    build(
        folder / "audio",
        folder / "set",
        config,
        BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1),
    )
    return folder / "set"


@pytest.fixture(scope="session")
def tone_run(tone_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that returns the run folder of a model on the tones; each run is trained once."""
    folder = tmp_path_factory.mktemp("tone runs")

    @cache
    def run(model: str, select_by: str = "auto") -> Path:
        config = defaults(model, epochs=6, batch_size=4, device="cpu", select_by=select_by)
        train(tone_set, config, folder / f"{model} {select_by}")
        return folder / f"{model} {select_by}"

    return run
