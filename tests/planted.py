"""Shard sets with a planted shortcut: a bright spot at a fixed place that determines the class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.writer import write_set
from shardwave.shards.format.shard_writer import Row

CLASSES = ["bell", "rain"]
SIZE = 64
PLACE = (slice(32, 48), slice(16, 32))  # of the spot: rows of frequency, columns of time


def write_planted(out: Path, *, slices: int = 0, train: int = 64) -> Path:
    """Write a set of noise with the spot in the class `rain`; in the split test, in half of both classes.

    The feature `hum_mean` has the same property; `mfcc1_mean` to `mfcc4_mean` are noise. A slice has the spot
    if it is the first of a clip with the spot.
    """
    rng = np.random.default_rng(0)
    config = SpectrogramConfig(image_size=SIZE, slices=slices, features=True)
    clips = {"train": train, "val": train // 4, "test": 16}

    def arrays(is_planted: bool) -> dict[str, np.ndarray]:
        image = rng.integers(0, 120, (SIZE, SIZE)).astype(np.uint8)
        values = rng.normal(size=5).astype(np.float32)
        if is_planted:
            image[PLACE] = 230
            values[4] += 6
        return {"npy": image, "features.npy": values}

    def rows(split: str, view: str) -> Iterator[Row]:
        for number in range(clips[split]):
            label = number % 2
            is_planted = label == 1 if split != "test" else number // 2 % 2 == 0
            for index in range(slices) if view == "slice" else (None,):
                length = 1.0 if index is None else 1 / slices
                meta = {
                    "label": CLASSES[label], "path": f"{split}/{number}.wav", "group": f"{split}{number}",
                    "fold": None, "view": view, "slice": index, "start": (index or 0) * length,
                    "length": length, "source_rate": 22_050,
                }  # fmt: skip
                key = f"{split}{number:03d}" + ("" if index is None else f"_s{index:03d}")
                yield Row(key, label, number, meta, arrays(is_planted and not index))

    about = {
        "config": dataclasses.asdict(config), "engine": "numba", "device": "cpu", "seed": 0,
        "classes": CLASSES, "feature_names": [*(f"mfcc{i}_mean" for i in range(1, 5)), "hum_mean"],
        "clips": sum(clips.values()), "audio_seconds": float(sum(clips.values())),
    }  # fmt: skip
    views = ("full", "slice") if slices else ("full",)
    shards = [(split, view, 0, rows(split, view)) for split in clips for view in views]
    fields = {"npy": ("uint8", (SIZE, SIZE)), "features.npy": ("float32", (5,))}
    write_set(out, shards, fields, about, samples=sum(clips.values()) * (1 + slices))
    return out
