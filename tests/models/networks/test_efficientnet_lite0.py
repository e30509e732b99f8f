"""EfficientNet-Lite0 computes what the original package computes (golden.npz, see make_golden.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwave.common.errors import ShardwaveError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.networks import backbone
from shardwave.models.networks.efficientnet_lite0 import EfficientNetLite0Backbone
from shardwave.models.runs import checkpoint
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from tests.preprocess.embeddings.golden_inputs import drawn

GOLDEN = Path(__file__).with_name("golden.npz")


def images() -> torch.Tensor:
    """Two images, uint8 [2, 224, 224]: stripes with noise."""
    rows = np.arange(224)
    waves = 127 + 90 * np.sin(rows / 9)[:, None] * np.cos(rows / np.array([[[5]], [[23]]]))
    return torch.from_numpy((waves + np.random.RandomState(0).randint(0, 30, (2, 224, 224))).astype(np.uint8))


def published(name: str) -> str:
    """Name of one of our tensors in the published state dict."""
    first, *rest = name.split(".")
    return f"_blocks.{rest[0]}._{rest[1]}.{rest[2]}" if first == "blocks" else f"_{name}"


def test_drawn_weights() -> None:
    """A wrong layer, order, padding or normalisation, without the published weights."""
    network = EfficientNetLite0Backbone()
    ours = network.features.state_dict()
    shapes = {
        published(name): tuple(value.shape) for name, value in ours.items() if "num_batches" not in name
    }
    state = {name: torch.from_numpy(value) for name, value in drawn(shapes).items()}
    network.features.load_state_dict(network.state_of(state))
    with torch.inference_mode():
        made = network(images()).numpy()
    expected = np.load(GOLDEN)["drawn"]
    assert made.shape == (2, 1280) and np.abs(made - expected).max() < 1e-4 * np.abs(expected).max()


def test_published_weights(pretrained: Callable[[str], None]) -> None:
    pretrained("efficientnet-lite0")
    with torch.inference_mode():
        made = backbone.load("efficientnet-lite0", "default")(images()).numpy()
    assert np.abs(made - np.load(GOLDEN)["published"]).max() < 1e-4


def test_transfer_trains_a_head_on_cached_outputs(make_set: Callable[..., Path], tmp_path: Path) -> None:
    images = make_set(
        tmp_path / "set", ["fold1", "fold2", "fold3"], clips=3, slices=0, size=32, features=False
    )
    config = defaults(
        "transfer", backbone="efficientnet-lite0", weights="none", epochs=2, batch_size=4, hidden_size=8,
        val_fold=1, device="cpu",
    )  # fmt: skip
    result = train(images, config, tmp_path / "run")
    assert not result["seconds"]["backbone"]["cached"]
    data = TrainingData(images, config)
    assert data.backbone_cost is not None and data.backbone_cost["cached"] and data.inputs.shape == (1280,)
    whole = checkpoint.load(tmp_path / "run" / "checkpoint.ckpt")
    assert len([layer for layer in whole.head.modules() if isinstance(layer, torch.nn.Linear)]) == 3
    scores = evaluate(tmp_path / "run", images, ("fold1",))["scores"]
    assert scores["fold1_full_f1"] == result["scores"]["val_full_f1"]


def test_absent_and_foreign_weights_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ShardwaveError, match="run shardwave fetch efficientnet-lite0"):
        backbone.load("efficientnet-lite0", "default")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ShardwaveError, match="not the weights of efficientnet_lite_pytorch's lite0"):
        backbone.load("efficientnet-lite0", str(tmp_path / "other.pth"))
    for options, message in (
        ({"model": "vgg16", "backbone": "vgg16"}, "backbone is for the model transfer, not for vgg16"),
        (
            {"model": "transfer", "backbone": "resnet"},
            "backbone must be one of vgg16, efficientnet-lite0, got resnet",
        ),
    ):
        with pytest.raises(ShardwaveError, match=message):
            defaults(**options)
