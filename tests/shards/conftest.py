"""Small audio folders, and a shard set built from one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import BuildOptions, build

RATE = 8_000
CONFIG = SpectrogramConfig(sample_rate=RATE, n_fft=256, hop_length=128, image_size=32, slices=3)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def write_clip(path: Path, seed: int, seconds: float = 0.4) -> None:
    """Write a tone in noise.

    Args:
        path: The WAV file.
        seed: Seed of the noise, which also determines the pitch.
        seconds: Length of the clip.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    samples = 0.3 * np.sin(2 * np.pi * (200 + 37 * seed % 3000) * time) + 0.05 * rng.standard_normal(
        len(time)
    )
    soundfile.write(path, samples, RATE, subtype="PCM_16")


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of three classes in folders."""
    folder = tmp_path_factory.mktemp("audio")
    for i in range(24):
        write_clip(folder / f"class {i % 3}" / f"clip.{i:05d}.wav", i)
    return folder


def labelled(folder: Path, rows: list[str], header: str = "path,label") -> Path:
    """Write a label file beside a folder.

    Args:
        folder: The audio folder.
        rows: Rows of the file.
        header: First line of the file.
    """
    path = folder.parent / f"{folder.name}.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def built(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set with both views and two shards per split and view; read it only."""
    out = tmp_path_factory.mktemp("sets") / "small"
    build(audio, out, CONFIG, BuildOptions(workers=2, min_shards=3, val_fraction=0.25))
    return out
