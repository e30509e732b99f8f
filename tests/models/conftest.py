"""Small shard sets of synthetic images and features, written as any other set is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.writer import write_set
from shardwave.shards.format.shard_writer import Row

CLASSES = ["bell", "rain", "saw"]
CLIPS = 12  # per class and set
SIZE = 32
FEATURES = 6


def write_images(
    out: Path,
    splits: list[str],
    *,
    slices: int = 3,
    features: bool = True,
    images: bool = True,
    size: int = SIZE,
    clips: int = CLIPS,
    seed: int = 0,
) -> Path:
    """A set whose classes differ by the band that is bright (and by two of the features), both with noise."""
    rng = np.random.default_rng(seed)
    config = SpectrogramConfig(image_size=size, frequency_scale="mel", slices=slices, features=features)
    fields = ({"npy": ("uint8", (size, size))} if images else {}) | (
        {"features.npy": ("float32", (FEATURES,))} if features else {}
    )

    def arrays(label: int) -> dict[str, np.ndarray]:
        image = rng.integers(0, 120, (size, size)).astype(np.uint8)
        band = size // 4 * (label + 1)
        image[band - 2 : band + 2] += 60
        values = rng.normal(size=FEATURES).astype(np.float32) * 100 + 1000
        values[label] += 250
        return ({"npy": image} if images else {}) | ({"features.npy": values} if features else {})

    def rows(split: int, view: str) -> Iterator[Row]:
        for number in range(split, clips * len(CLASSES), len(splits)):
            label = number % len(CLASSES)
            for index in range(slices) if view == "slice" else (None,):
                key = f"{number:06d}" + ("" if index is None else f"_s{index:03d}")
                place = {"start": 0.0, "length": 1.0, "view": view, "slice": index, "source_rate": 22_050}
                name = {
                    "label": CLASSES[label],
                    "path": f"{CLASSES[label]}/clip {number}.wav",
                    "group": str(number),
                }
                meta = {**name, **place, "fold": split + 1 if splits[0] == "fold1" else None}
                yield Row(key, label, number, meta, arrays(label))

    views = ("full", "slice") if slices else ("full",)
    shards = [(name, view, 0, rows(i, view)) for i, name in enumerate(splits) for view in views]
    about = {
        "config": dataclasses.asdict(config), "engine": "numba", "device": "cpu", "seed": seed,
        "classes": CLASSES, "feature_names": [f"f{i}" for i in range(FEATURES)] if features else [],
        "clips": clips * len(CLASSES), "audio_seconds": 100.0,
    }  # fmt: skip
    write_set(out, shards, fields, about, samples=clips * len(CLASSES) * (1 + slices))
    return out


@pytest.fixture(scope="session")
def make_set() -> Callable[..., Path]:
    return write_images


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 clips in four folds, 3 slices each, images and features."""
    return write_images(tmp_path_factory.mktemp("sets") / "folded", ["fold1", "fold2", "fold3", "fold4"])


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in train, val and test."""
    return write_images(tmp_path_factory.mktemp("sets") / "split", ["train", "val", "test"])
