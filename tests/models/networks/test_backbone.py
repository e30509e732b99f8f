"""The frozen part computed once is the frozen part computed every time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.networks import backbone
from shardwave.models.runs import checkpoint
from shardwave.models.training.config import defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.train import train
from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set

SMALL = {"epochs": 2, "batch_size": 4, "hidden_size": 8, "val_fold": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def images(make_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 clips of 64x64, one image each: VGG16 takes a fifth of a second for each of them."""
    return make_set(
        tmp_path_factory.mktemp("vgg") / "set",
        ["fold1", "fold2", "fold3"],
        clips=3,
        slices=0,
        size=64,
        features=False,
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision's, of other values than those that `none` gives."""
    from torchvision.models import vgg16

    torch.manual_seed(11)
    state = {
        name: value
        for name, value in vgg16(weights=None).state_dict().items()
        if name.startswith("features.")
    }
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(state, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "file"])
def test_cached_outputs_train_a_head_equal_to_the_whole_network(
    images: Path, weights: Path, tmp_path: Path, kind: str
) -> None:
    config = defaults("vgg16", **SMALL, weights="none" if kind == "none" else str(weights))
    result = train(images, config, tmp_path / "run")
    assert result["seconds"]["backbone"]["samples"] == 9 and not result["seconds"]["backbone"]["cached"]
    data = TrainingData(images, config)
    assert data.backbone_cost is not None and data.backbone_cost["cached"]
    verify(open_set(data.set.path))
    assert fit(data, config).history == result["history"]
    whole = checkpoint.load(tmp_path / "run" / "checkpoint.ckpt")
    view, cached = data.source.view("fold1"), data.set.view("fold1")
    with torch.inference_mode():
        by_network = whole.network(torch.from_numpy(view.gather(np.arange(len(view)))["npy"]))
        by_cache = whole.head(torch.from_numpy(cached.gather(np.arange(len(cached)))["npy"]))
    assert torch.allclose(
        by_network, by_cache, atol=2e-3 * by_network.abs().max()
    )  # outputs are kept as float16
    assert (
        evaluate(tmp_path / "run", images, ("fold1",))["scores"]["fold1_full_f1"]
        == result["scores"]["val_full_f1"]
    )


@pytest.mark.slow
def test_cache_depends_on_the_set_and_the_weights(images: Path, weights: Path) -> None:
    source, device = open_set(images), torch.device("cpu")
    first, _ = backbone.derived_set(source, backbone.load("vgg16", "none"), "32-true", device)
    other, _ = backbone.derived_set(source, backbone.load("vgg16", str(weights)), "32-true", device)
    assert first.path != other.path and first.fingerprint != other.fingerprint != source.fingerprint
    again, cost = backbone.derived_set(source, backbone.load("vgg16", "none"), "32-true", device)
    assert again.path == first.path and cost["cached"]


def test_cache_depends_on_the_device_kind_and_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of a GPU differ in rounding from those of a CPU, and TF32 changes them much more."""

    frozen = backbone.make("vgg16")

    def key(device: str) -> dict[str, str]:
        return backbone.outputs_identity(frozen, "set", "weights", "32-true", torch.device(device))

    assert key("cuda:0") == key("cuda:1") != key("cpu")
    before = key("cuda")
    monkeypatch.setattr(backbone, "POLICY", {**backbone.POLICY, "cudnn_allow_tf32": True})
    assert key("cuda") != before


def test_the_frozen_part_gets_no_gradient_and_the_head_all(images: Path) -> None:
    config = defaults("vgg16", **SMALL, weights="none")
    data = TrainingData(images, config)
    learner = data.learner(config, 2)
    batch = next(iter(data.train_batches(config)))
    learner.training_step(batch).backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in learner.network.parameters()
    )
    assert data.frozen is not None and not any(
        parameter.requires_grad for parameter in data.frozen.parameters()
    )


def test_unavailable_weights_raise_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = defaults("vgg16", **SMALL, weights=str(tmp_path / "no.pth"))
    with pytest.raises(UsageError, match="--weights must be default, none or a file, got .*no.pth"):
        TrainingData(images, config)
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(ShardwaveError, match="is damaged, or not a state dict"):
        TrainingData(images, dataclasses.replace(config, weights=str(tmp_path / "bad.pth")))
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ShardwaveError, match="not the weights of torchvision's vgg16"):
        TrainingData(images, dataclasses.replace(config, weights=str(tmp_path / "other.pth")))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing answers there: offline
    with pytest.raises(
        ShardwaveError, match="not in torchvision.s cache and cannot be downloaded .*use --weights FILE"
    ) as caught:
        TrainingData(images, dataclasses.replace(config, weights="default"))
    assert "\n" not in str(caught.value)


def test_vgg16_refuses_a_set_of_features(make_set: Callable[..., Path], tmp_path: Path) -> None:
    made = make_set(tmp_path / "table", ["train", "val"], clips=2, images=False)
    with pytest.raises(UsageError, match="model vgg16 needs images"):
        TrainingData(made, defaults("vgg16", weights="none", device="cpu"))
