"""What the search tests share: a Ray instance for all of them, and a look at what processes leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from processes import started

RAY = """
import os, sys
sys.path[:0] = {path!r}
import tempfile
from pathlib import Path
from shardwave.search.budget import SearchBudget
from shardwave.search.backends.ray.backend import ray_running
from shardwave.shards.build import ray_cluster
start = ray_cluster.start
ray_cluster.start = lambda ray, **settings: start(ray, num_gpus=1, **settings)  # not a real one
budget = SearchBudget(jobs=2, trials=2)
temporary = tempfile.TemporaryDirectory(prefix="sw-", dir="/tmp")
with temporary as folder, ray_running(None, print, budget, Path(folder)):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a Ray instance, started once: a search of its own takes seconds to start one.

    It has two CPUs, and pretends to have a GPU.
    """
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.getcwd()]
    process = subprocess.Popen(
        [sys.executable, "-c", RAY.format(path=path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate("")


@pytest.fixture
def marked() -> Iterator[dict[str, str]]:
    """An environment that marks every process started with it; when the test ends, none of them may live."""
    mark = f"SHARDWAVE_TEST={uuid.uuid4()}"
    name, value = mark.split("=")
    yield {**os.environ, name: value}
    until = time.monotonic() + 10
    while (left := started(mark)) and time.monotonic() < until:  # the fork server ends after its client
        time.sleep(0.05)
    assert not left, left


@pytest.fixture(scope="session")
def feature_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 clips of three classes in three folds, five features each, 3 slices: two features tell the
    classes apart."""
    import dataclasses

    import numpy as np

    from shardwave.preprocess.config import SpectrogramConfig
    from shardwave.shards.build.writer import write_set
    from shardwave.shards.format.shard_writer import Row

    out, rng, classes = (
        tmp_path_factory.mktemp("sets") / "features",
        np.random.default_rng(0),
        ["bell", "rain", "saw"],
    )

    def rows(fold: int, view: str) -> Iterator[Row]:
        for number in range(fold, 36, 3):
            label = number // 3 % 3
            for index in range(3) if view == "slice" else (None,):
                values = rng.normal(size=5).astype(np.float32)
                values[label] += 2.0
                key = f"{number:03d}" + ("" if index is None else f"_s{index}")
                meta = {
                    "label": classes[label],
                    "path": f"{number}.wav",
                    "group": str(number),
                    "fold": fold + 1,
                    "view": view,
                }
                place = {"slice": index, "start": 0.0, "length": 1.0, "source_rate": 22_050}
                yield Row(key, label, number, {**meta, **place}, {"features.npy": values})

    shards = [
        (f"fold{fold + 1}", view, 0, rows(fold, view)) for fold in range(3) for view in ("full", "slice")
    ]
    about = {
        "config": dataclasses.asdict(SpectrogramConfig(slices=3, features=True)),
        "engine": "numba",
        "device": "cpu",
        "seed": 0,
    }
    about |= {
        "classes": classes,
        "feature_names": [f"f{i}" for i in range(5)],
        "clips": 36,
        "audio_seconds": 36.0,
    }
    write_set(out, shards, {"features.npy": ("float32", (5,))}, about, samples=36 * 4)
    return out
