"""Builds the network that a training configuration describes."""

from __future__ import annotations

import torch
from torch import nn

from shardwave.common.errors import UsageError
from shardwave.models.networks.base import Inputs, Network
from shardwave.models.networks.registry import find, imported
from shardwave.models.training.config import TrainConfig


def build_model(config: TrainConfig, inputs: Inputs) -> Network:
    """Return the network that `config` describes, its weights drawn from config.seed.

    It maps a raw batch, uint8 [batch, frequency, time] or float [batch, features], to logits [batch, classes].
    """
    torch.default_generator.manual_seed(config.seed)
    if ":" in config.model:
        return OwnNetwork(inputs, config)
    make = find(config.model).make
    network: Network = (imported(make) if isinstance(make, str) else make)(inputs, config)
    return network


class OwnNetwork(Network):
    """A user's module between the standardised inputs and the logits."""

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        shape = (1, *inputs.shape) if inputs.images else inputs.shape
        self.body = imported(config.model)(shape, inputs.classes, **config.network_options)
        if not isinstance(self.body, nn.Module):
            raise UsageError(f"{config.model} must return an nn.Module, got {type(self.body).__name__}")
        self.body.eval()
        with torch.no_grad():  # also gives lazy modules their shapes
            logits = self.body(torch.zeros(2, *shape))
        if tuple(logits.shape) != (2, inputs.classes):
            expected = f"[batch, {inputs.classes}]"
            raise UsageError(
                f"{config.model} must map [batch, {', '.join(map(str, shape))}] to {expected}, got {list(logits.shape)}"
            )
        self.body.train()
