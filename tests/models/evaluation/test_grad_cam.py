"""Grad-CAM finds a planted shortcut: a bright spot that determines the class in the training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.grad_cam import grad_cam
from shardwave.models.runs import checkpoint
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from tests.planted import PLACE, SIZE, write_planted


@pytest.mark.parametrize("model", ["cnn", "cnn-plus", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_the_maps_lie_on_the_planted_spot(model: str, tmp_path: Path) -> None:
    weights = {"weights": "none"} if model == "vgg16" else {}
    config = defaults(model, epochs=8, batch_size=16, device="cpu", **weights)
    train(write_planted(tmp_path / "set", train=32), config, tmp_path / "run")
    network = checkpoint.load(tmp_path / "run" / checkpoint.NAME).network
    images = np.random.default_rng(7).integers(0, 120, (4, SIZE, SIZE)).astype(np.uint8)
    images[(slice(None), *PLACE)] = 230
    with torch.inference_mode():
        assert (network(torch.from_numpy(images)).argmax(1) == 1).all(), "the shortcut was not learned"
    maps = grad_cam(network, torch.from_numpy(images), 1)
    assert maps.shape == images.shape and maps.dtype == np.float32 and (maps >= 0).all()
    inside = maps[(slice(None), *PLACE)].sum((1, 2)) / maps.sum((1, 2))
    assert inside.min() > 0.3  # on 6 % of the area
    row, column = np.unravel_index(maps.mean(0).argmax(), (SIZE, SIZE))
    assert PLACE[0].start <= row < PLACE[0].stop and PLACE[1].start <= column < PLACE[1].stop


def test_it_is_the_exact_evidence_of_a_linear_layer_over_places() -> None:
    """Without ReLU, activation times gradient summed over all places is the logit."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.head = nn.Conv2d(1, 3, 1, bias=False), nn.Linear(3 * 16, 2, bias=False)
            with torch.no_grad():
                self.maps.weight.abs_()
                self.head.weight.abs_()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.maps(batch[:, None].float()).flatten(1))
            return logits

    network = Net().requires_grad_(False)  # as the frozen part of transfer
    images = torch.randint(0, 255, (2, 4, 4), dtype=torch.uint8)
    maps = grad_cam(network, images, 1)
    np.testing.assert_allclose(maps.sum((1, 2)), network(images)[:, 1].numpy(), rtol=1e-5)


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer of the network returns feature maps"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 2, 2), 0)
