"""Audio of ten classes that models can learn, and shard sets built from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shardwave.bench.gpu import device
from shardwave.bench.harness.audio import RATE, SECONDS
from shardwave.bench.harness.scope import Scope
from shardwave.common.environment import cores
from shardwave.common.messages import muted
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions

CLASSES = 10
QUICK = 3  # classes of a quick run


def genre_audio(scope: Scope) -> Path:
    """Write clips as many and as long as those of GTZAN, 10 x 100 of 30 s, and return their folder.

    Clips of a class share the range of their tones; classes overlap.
    """
    folder = scope.subfolder("genres")
    if not any(folder.iterdir()):
        jobs = [(c, i) for c in range(scope.pick(QUICK, CLASSES)) for i in range(scope.pick(4, 100))]
        seconds = scope.pick(2, int(SECONDS))
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(lambda job: _write(folder, job[0], job[1], seconds), jobs))
    return folder


def genre_set(scope: Scope, image_size: int) -> Path:
    """Build the shard set of `genre_audio` with slices and features at first use; return its folder."""
    out = scope.subfolder("sets") / str(image_size)
    config = SpectrogramConfig(image_size=image_size, slices=scope.pick(2, 10), features=True)
    options = BuildOptions(device=device.name(scope.cuda), val_fraction=0.25)
    with muted():
        build(genre_audio(scope), out, config, options)  # does nothing if the set is finished
    return out


def _write(folder: Path, cls: int, number: int, seconds: int) -> None:
    """Write a clip: half-second beats of a few chords in noise."""
    import soundfile

    rng = np.random.default_rng((cls, number))
    time = np.arange(RATE // 2, dtype=np.float32) / RATE
    beats = []
    for _ in range(4):
        root = 110 * 2 ** (rng.integers(cls, cls + 6) / 6)
        tones = sum(np.sin(2 * np.pi * root * k * time) / k for k in range(1, 5))
        beats.append(0.2 * tones * np.exp(-(2 + cls % 3) * time))
    clip = np.concatenate([beats[i] for i in rng.integers(0, len(beats), 2 * seconds)])
    clip += np.resize(rng.uniform(0.01, 0.05) * rng.standard_normal(RATE), len(clip))
    path = folder / f"class{cls}" / f"{number:05d}.wav"
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, clip, RATE, subtype="PCM_16")
