"""Small things to measure: a tiny scope, a made-up table of learning curves."""

import math

import numpy as np
import pytest

from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import Plan
from shardwave.bench.search_quality import curves
from shardwave.search.space import space_for
from shardwave.shards.build.writer import write_set
from shardwave.shards.format.shard_writer import Row

ONCE = Plan(minimum=1, maximum=1, warmup=0, seconds=0, limit=60)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A quick scope on four synthetic clips, every case measured once."""
    scope = Scope(tmp_path_factory.mktemp("bench"), True, 2, 4, ONCE, tmp_path_factory.mktemp("no-music"))
    yield scope
    scope.close()


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """The path of a table whose best learning rate is 10 ** -2.8 and best dropout 0.3, over ten epochs."""
    space = space_for("mlp")
    rows = []
    for number in range(240):
        params = space.point(number, 7)
        top = (
            0.85 - 0.08 * abs(math.log10(params["learning_rate"]) + 2.8) - 0.1 * abs(params["dropout"] - 0.3)
        )
        correct = [round(1000 * top * (1 - math.exp(-(epoch + 1) / 3))) for epoch in range(10)]
        rows.append(
            {
                "configuration": number,
                "seed": 0,
                "params": params,
                "val_correct": [correct] * curves.FOLDS,
                "val_loss": [[0.5] * 10],
                "test_correct": [correct],
                "seconds": 0.1 + params["hidden_size"] / 1_000,
            }  # fmt: skip
        )
    path = tmp_path_factory.mktemp("curves") / "made-up.npz"
    head = {
        "name": "made-up",
        "space": space.describe(),
        "val_clips": [1000] * curves.FOLDS,
        "test_clips": 1000,
    }
    curves.write(path, head, rows)
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Real run folders of a made-up set of features: a training and two searches, by name."""
    from shardwave.models.training.config import defaults
    from shardwave.models.training.train import train
    from shardwave.search.run import SearchConfig, search

    folder = tmp_path_factory.mktemp("runs")
    shard_set = _features(folder / "set")
    train(shard_set, defaults("mlp", epochs=3, device="cpu"), folder / "mlp")
    for backend in ("random", "optuna"):
        search(
            shard_set,
            SearchConfig("mlp", backend, trials=4, epochs=3, jobs=1, device="cpu"),
            folder / backend,
        )
    return {name: folder / name for name in ("mlp", "random", "optuna")}


def _features(out):
    """Three classes, told apart by two of four features; whole clips alone."""
    rng = np.random.default_rng(0)
    names = ["bell", "rain <&> saw", "wind"]

    def row(split, number):
        cls = number % 3
        values = rng.standard_normal(4).astype(np.float32)
        values[cls % 2] += 2 * cls
        meta = {
            "label": names[cls],
            "path": f"{number}.wav",
            "group": None,
            "fold": None,
            "view": "full",
            "slice": None,
        }
        meta |= {"start": 0.0, "length": 1.0, "source_rate": 22_050}
        return Row(
            f"{split}{number:03d}",
            cls,
            number,
            {**meta, "start": 0.0, "length": 1.0, "source_rate": 22_050},
            {"features.npy": values},
        )

    about = {
        "config": {"kind": "made-up features"}, "engine": None, "device": "cpu", "seed": 0, "classes": names,
        "feature_names": list("abcd"), "clips": 90, "audio_seconds": 90.0,
    }  # fmt: skip
    parts = {"train": range(60), "val": range(60, 90)}
    shards = [(name, "full", 0, [row(name, number) for number in numbers]) for name, numbers in parts.items()]
    write_set(out, shards, {"features.npy": ("float32", (4,))}, about, samples=90)
    return out
