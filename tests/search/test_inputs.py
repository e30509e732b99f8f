"""Heads on several vector fields: joined, standardised, in both trainers, in a search, and in evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwave.common.errors import UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.networks.base import Network
from shardwave.models.runs import checkpoint
from shardwave.models.runs.clip_table import config_differences
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.train import train
from shardwave.search.config import SearchConfig
from shardwave.search.fused import mlp
from shardwave.search.run import search as run
from shardwave.search.space import Choice, space_for
from shardwave.shards.build.writer import Shard, write_set
from shardwave.shards.format.shard_writer import Row
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.resident import Resident

BOTH = "features.npy+other.npy"


@pytest.fixture(scope="module")
def two_fields(feature_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`feature_set` with a second field that names the class, on another scale."""
    out, parent = tmp_path_factory.mktemp("inputs") / "set", open_set(feature_set)
    generator = np.random.default_rng(0)

    def shards() -> Iterator[Shard]:
        for split, views in parent.manifest["splits"].items():
            for view in views:
                opened = parent.view(split, view)
                vectors = opened.gather(np.arange(len(opened)), ["features.npy"])["features.npy"]
                rows = []
                for i, cls in enumerate(opened.cls.tolist()):
                    other = 1e-3 * generator.normal(size=5).astype(np.float32)
                    other[cls] += 6e-3
                    arrays = {"features.npy": vectors[i], "other.npy": other}
                    rows.append(Row(opened.key(i), cls, int(opened.clip[i]), opened.meta(i), arrays))
                yield split, view, 0, rows

    width = parent.fields["features.npy"]["shape"][0]
    fields = {"features.npy": ("float32", (width,)), "other.npy": ("float32", (5,))}
    manifest = parent.manifest
    description = {
        "config": {"made": "by a test"}, "engine": None, "device": None, "seed": 0, "classes": parent.classes,
        "feature_names": manifest["feature_names"], "clips": manifest["clips"], "audio_seconds": 0.0,
    }  # fmt: skip
    write_set(out, shards(), fields, description, samples=1)
    return out


def config(**changes: object) -> TrainConfig:
    return defaults(
        "mlp", **{"val_fold": 1, "epochs": 3, "batch_size": 10, "device": "cpu", "dropout": 0.0, **changes}
    )


def test_joined_fields_are_concatenated(two_fields: Path) -> None:
    opened = open_set(two_fields)
    view = opened.view("fold1")
    rows = np.array([2, 0])
    apart = view.gather(rows, ["features.npy", "other.npy"])
    joined = np.concatenate([apart["features.npy"], apart["other.npy"]], 1)
    assert np.array_equal(view.gather(rows, [BOTH])[BOTH], joined)
    copied = Resident(view, "cpu", [BOTH]).fetch(rows)[BOTH]
    assert opened.field(BOTH)["shape"] == [joined.shape[1]] and np.array_equal(copied.numpy(), joined)
    with pytest.raises(UsageError, match="no array field third.npy: it has features.npy, other.npy"):
        view.gather(rows, ["features.npy+third.npy"])


def test_each_value_is_standardised(two_fields: Path) -> None:
    """Without it, values of about 1,000 would hide those of a thousandth."""
    data = TrainingData(two_fields, config(inputs="features,other"))
    network = data.learner(config(inputs="features,other"), 1).network
    assert isinstance(network, Network)
    rows = np.arange(len(data.train))
    prepared = network.prepare(torch.from_numpy(data.train.gather(rows, [BOTH])[BOTH]))
    assert torch.allclose(prepared.mean(0), torch.zeros(prepared.shape[1]), atol=1e-3)
    assert torch.allclose(prepared.std(0, correction=0), torch.ones(prepared.shape[1]), atol=1e-3)


@pytest.mark.parametrize("hidden_layers", [0, 1])
def test_both_trainers_agree(two_fields: Path, hidden_layers: int) -> None:
    chosen = config(
        inputs="other,features", hidden_layers=hidden_layers, precision="64-true", label_smoothing=0.1
    )
    data = TrainingData(two_fields, chosen)
    expected, found = fit(data, chosen), mlp.fit(data, chosen)
    for name, value in expected.state_dict.items():
        torch.testing.assert_close(found.state_dict[name], value, rtol=1e-9, atol=1e-10)


def test_train_and_evaluate(two_fields: Path, feature_set: Path, tmp_path: Path) -> None:
    """Mixup works on vectors, and the run's record and checkpoint name the inputs."""
    chosen = config(
        inputs="other", hidden_layers=0, mixup=0.3, label_smoothing=0.1, epochs=20, learning_rate=0.01
    )
    result = train(two_fields, chosen, tmp_path / "run")
    assert result["params"]["inputs"] == "other" and result["scores"]["val_full_accuracy"] > 0.8
    trained = checkpoint.load(tmp_path / "run" / checkpoint.NAME)
    assert trained.field == "other.npy" and trained.network.mean.shape == (5,)
    scores = evaluate(tmp_path / "run", two_fields, splits=["fold1"])["scores"]
    assert scores["fold1_full_accuracy"] == pytest.approx(result["scores"]["val_full_accuracy"])
    with pytest.raises(
        UsageError, match="needs field other.npy, .* add the field with shardwave embed --with other"
    ):
        evaluate(tmp_path / "run", feature_set)


def test_a_search_chooses_the_inputs(two_fields: Path, tmp_path: Path) -> None:
    """Trials of one process must not share the data of the first trial."""
    space = {"inputs": Choice(("features", "other", "features,other")), "hidden_layers": Choice((0, 1))}
    settings = SearchConfig("mlp", "random", trials=8, epochs=4, jobs=1, space=space, val_fold=1, test_fold=2)
    result = run(two_fields, settings, tmp_path / "run")
    trials = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    widths = {"features": 0, "other": 5, "features,other": 5}
    chosen = {trial["params"]["inputs"] for trial in trials}
    assert len(chosen) > 1 and all(trial["state"] != "FAILED" for trial in trials)
    features = open_set(two_fields).field("features.npy")["shape"][0]
    network = checkpoint.load(tmp_path / "run" / checkpoint.NAME).network
    best = result["params"]["inputs"]
    assert network.mean.shape == (widths[best] + (features if "features" in best else 0),)
    assert "test_full_accuracy" in result["scores"]


def test_space_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yml"
    path.write_text("inputs:\n  choice: [features, 'features,aisfx']\n")
    assert space_for("mlp", path).dimensions["inputs"] == Choice(("features", "features,aisfx"))
    path.write_text("inputs: aisfx\n")
    assert space_for("mlp", path).first("inputs", None) == "aisfx"
    for text, message in (
        ("inputs:\n  choice: [1]\n", "inputs takes texts, got 1"),
        ("inputs:\n  uniform: [a, b]\n", "inputs takes texts: use grid or choice, not uniform"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            space_for("mlp", path)
    path.write_text("inputs: aisfx\n")
    with pytest.raises(UsageError, match="inputs is not a hyper-parameter of cnn"):
        space_for("cnn", path)


def test_wrong_inputs_raise_one_line(two_fields: Path) -> None:
    for inputs in ("a,a", "a, b", "", "a.npy"):
        with pytest.raises(
            UsageError, match="inputs must be different names separated by commas, such as features,aisfx"
        ):
            config(inputs=inputs)
    with pytest.raises(UsageError, match="inputs selects the vector fields of mlp, not of model cnn"):
        defaults("cnn", inputs="aisfx")
    with pytest.raises(
        UsageError, match="needs field vggish.npy, .* has features.npy, other.npy: build it with --embed"
    ):
        TrainingData(two_fields, config(inputs="features,vggish"))


def test_only_settings_of_the_inputs_must_agree() -> None:
    one = {"image_size": 64, "slices": 0, "embeddings": "a 1,b 1"}
    other = {"image_size": 32, "slices": 0, "embeddings": "b 2,a 1"}
    assert config_differences(one, other, "a.npy") == []
    assert config_differences(one, other, "features.npy+b.npy") == [("embeddings", "b 1", "b 2")]
    assert config_differences(one, other, "features.npy+a.npy") == []
    assert config_differences(one, other, "npy") == [("image_size", 64, 32)]
    assert config_differences(one, {**other, "slices": 2}, "a.npy") == [("slices", 0, 2)]
