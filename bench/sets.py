"""Shard sets to measure reading on: many samples from few real spectrograms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.scope import Scope
from preprocess.config import SpectrogramConfig
from preprocess.decode import decode
from preprocess.engine import make_engine
from shards.writer import Row, write_set

CLASSES = 10


def spectrograms(scope: Scope, clips: int) -> np.ndarray:
    """uint8 [clips x 11, 512, 512]: the images of some of the bench's clips and of their ten slices."""
    config = SpectrogramConfig()
    engine = make_engine("numba", "cpu", config)
    parts = []
    for path in scope.audio[:clips]:
        output = engine([decode(path, config.sample_rate).samples])
        parts += [output.full, output.slices[0]]
    return np.concatenate(parts)


def write_images(out: Path, images: np.ndarray, count: int, shard_bytes: float = 256e6, partition: str = "train") -> list[Path]:
    """A set of `count` samples in the full view, which repeat `images` (uint8 [n, ...]); the paths of its tars."""
    per_shard = max(1, int(shard_bytes // max(1, images[0].nbytes)))

    def shards() -> Iterator[tuple[str, str, int, Iterator[Row]]]:
        for number, start in enumerate(range(0, count, per_shard)):
            rows = range(start, min(start + per_shard, count))
            yield partition, "full", number, (_row(i, images[i % len(images)]) for i in rows)

    about = {
        "config": {"bench": "repeated images", "shape": list(images.shape[1:])}, "engine": None, "device": "cpu", "seed": 0,
        "classes": [f"class{i}" for i in range(CLASSES)], "feature_names": [], "clips": count, "audio_seconds": 0.0,
    }  # fmt: skip
    write_set(out, shards(), {"npy": ("uint8", images.shape[1:])}, about, samples=count)
    return sorted(out.glob("*.tar"))


def _row(i: int, image: np.ndarray) -> Row:
    cls = i % CLASSES
    meta = {"label": f"class{cls}", "path": f"class{cls}/{i:06d}.wav", "group": None, "fold": None, "view": "full", "slice": None}
    return Row(f"{i:06d}", cls, i, {**meta, "start": 0.0, "length": 30.0, "source_rate": 22_050}, {"npy": image})
