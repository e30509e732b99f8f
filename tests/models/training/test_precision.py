"""Selection of the precision, and the memory format of convolutions under it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shardwave.models.networks.base import Inputs
from shardwave.models.networks.build import build_model
from shardwave.models.training.config import defaults
from shardwave.models.training.precision import autocast, resolve, resolved


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [("cpu", True, "32-true"), ("cuda", True, "bf16-mixed"), ("cuda", False, "32-true")],
)
def test_auto_follows_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, has_bfloat16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    assert resolve("auto", torch.device(device)) == expected
    assert resolved(defaults("cnn"), torch.device(device)).precision == expected
    assert resolve("64-true", torch.device(device)) == "64-true"


@pytest.mark.parametrize("model", ["cnn", "cnn-plus"])
def test_convolutions_run_channels_last_in_bfloat16(model: str) -> None:
    """Another format would make cuDNN transpose every activation."""
    network = build_model(defaults(model), Inputs("npy", (32, 32), 3, torch.zeros(1), torch.ones(1)))
    seen = []

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        seen.append(weight.is_contiguous(memory_format=torch.channels_last))
        seen.append(output.is_contiguous(memory_format=torch.channels_last))
        assert output.dtype == torch.bfloat16

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(hook)
    with autocast("bf16-mixed", torch.device("cpu")):
        logits = network(torch.zeros(4, 32, 32, dtype=torch.uint8))
    assert logits.dtype == torch.bfloat16 and len(seen) >= 4 and all(seen)
