"""Every network: shapes, gradients, standardised inputs, the seed, sizes that options name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from shardwave.models.networks.base import Inputs, parameters, standardisation
from shardwave.models.networks.build import build_model
from shardwave.models.networks.registry import NETWORKS
from shardwave.models.networks.vgg16 import Vgg16Backbone
from shardwave.models.training.config import defaults

IMAGES = Inputs("npy", (32, 48), 4, torch.tensor([100.0]), torch.tensor([50.0]))
FEATURES = Inputs("features.npy", (9,), 4, torch.arange(9.0), torch.full((9,), 3.0))
OUTPUT = Inputs("npy", (Vgg16Backbone.outputs,), 4, torch.zeros(1), torch.ones(1))
INPUTS = {"mlp": FEATURES, "cnn": IMAGES, "cnn-plus": IMAGES, "vgg16": OUTPUT, "transfer": OUTPUT}


def batch_for(inputs: Inputs, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if inputs.images:
        return torch.randint(0, 256, (size, *inputs.shape), generator=generator, dtype=torch.uint8)
    return torch.rand(size, *inputs.shape, generator=generator)


@pytest.mark.parametrize("model", NETWORKS)
def test_logits_of_a_raw_batch_and_a_gradient_for_every_parameter(model: str) -> None:
    network = build_model(defaults(model, dropout=0.0, hidden_size=16), INPUTS[model])
    logits = network(batch_for(INPUTS[model]))
    assert logits.shape == (5, 4) and logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", NETWORKS)
def test_the_seed_draws_the_weights(model: str) -> None:
    one, same, other = (
        build_model(defaults(model, seed=seed, hidden_size=8), INPUTS[model]).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_architectures_match_the_original_report() -> None:
    mlp = build_model(defaults("mlp", hidden_size=7, hidden_layers=2), FEATURES)
    assert parameters(mlp) == (9 * 7 + 7) + (7 * 7 + 7) + (7 * 4 + 4)
    config = defaults(
        "cnn",
        hidden_size=10,
        conv1_kernel=3,
        conv2_kernel=5,
        conv1_channels=16,
        conv2_channels=32,
        hidden_layers=2,
    )
    convolutions = (16 * 9 + 16) + (32 * 16 * 25 + 32)
    flat = 32 * (32 // 4) * (48 // 4)
    assert parameters(build_model(config, IMAGES)) == convolutions + (flat * 10 + 10) + (10 * 10 + 10) + (
        10 * 4 + 4
    )
    head = build_model(defaults("vgg16", hidden_size=3, hidden_layers=2), OUTPUT)
    assert [type(layer).__name__ for layer in head.body] == [
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
    ]
    assert (
        sum(value.numel() for value in Vgg16Backbone().features.parameters()) == 14_714_688
    )  # torchvision's, without its classifier


@pytest.mark.parametrize("kernels", [(2, 4), (3, 3), (5, 7), (32, 16)])
def test_kernels_of_any_size_that_fits_keep_the_image(kernels: tuple[int, int]) -> None:
    network = build_model(
        defaults("cnn", conv1_kernel=kernels[0], conv2_kernel=kernels[1], hidden_size=4), IMAGES
    )
    assert network(batch_for(IMAGES)).shape == (5, 4)


def test_pooling_before_relu_is_relu_before_pooling() -> None:
    values = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    pool, relu = nn.MaxPool2d(2), nn.ReLU()
    assert torch.equal(relu(pool(values)), pool(relu(values)))


def test_inputs_are_standardised_by_training_statistics_that_the_state_keeps() -> None:
    values = torch.tensor([[1.0, 5.0, 10.0], [3.0, 5.0, 30.0]], dtype=torch.float64)
    mean, std = standardisation(values)
    assert mean.tolist() == [2.0, 5.0, 20.0] and std.tolist() == [
        1.0,
        1.0,
        10.0,
    ]  # a constant column is divided by 1
    inputs = Inputs("features.npy", (3,), 2, mean.float(), std.float())
    network = build_model(defaults("mlp"), inputs)
    assert torch.equal(network.prepare(values.float()), torch.tensor([[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]]))
    assert torch.equal(network.state_dict()["mean"], mean.float())
    images = build_model(defaults("cnn"), IMAGES).prepare(batch_for(IMAGES))
    assert torch.allclose(images[:, 0], (batch_for(IMAGES).float() - 100) / 50)


@pytest.mark.parametrize("options", [{"conv1_kernel": 33}, {"conv2_kernel": 17}])
def test_kernels_larger_than_their_input_are_refused(options: dict[str, Any]) -> None:
    from shardwave.common.errors import UsageError

    with pytest.raises(UsageError, match="its input of .* pixels .32x48 images.: use a smaller kernel"):
        build_model(defaults("cnn", **options), IMAGES)
