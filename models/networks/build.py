"""Construction of a network from its training settings."""

from __future__ import annotations

import torch
from torch import nn

from shardwave.common.errors import UsageError
from shardwave.models.networks.base import Inputs, Network
from shardwave.models.networks.registry import find, imported
from shardwave.models.training.config import TrainConfig


def build_model(config: TrainConfig, inputs: Inputs) -> Network:
    """Build the network of `config`, with initial weights drawn from `config.seed`.

    Args:
        config: Training settings; `model` and the hyper-parameters of the network are used.
        inputs: Description of the network's input.

    Returns:
        A network that maps a raw batch, uint8 [batch, frequency, time] or float [batch, features], to logits
        [batch, classes].

    Raises:
        UsageError: The network is unknown, does not accept the shape of the inputs or has invalid options.
    """
    torch.default_generator.manual_seed(config.seed)
    if ":" in config.model:
        return OwnNetwork(inputs, config)
    make = find(config.model).make
    network: Network = (imported(make) if isinstance(make, str) else make)(inputs, config)
    return network


class OwnNetwork(Network):
    """Wrap a user's module that maps standardised inputs to logits.

    Args:
        inputs: Description of the network's input.
        config: Training settings; `model` names the function that builds the module, called with the shape of
            one input, the number of classes and `network_options`.

    Raises:
        UsageError: The function does not return an `nn.Module`, or the logits have a wrong shape.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        shape = (1, *inputs.shape) if inputs.images else inputs.shape
        self.body = imported(config.model)(shape, inputs.classes, **config.network_options)
        if not isinstance(self.body, nn.Module):
            raise UsageError(f"{config.model} must return an nn.Module, got {type(self.body).__name__}")
        self.body.eval()
        with torch.no_grad():  # also initialises lazy modules
            logits = self.body(torch.zeros(2, *shape))
        if tuple(logits.shape) != (2, inputs.classes):
            expected = f"[batch, {inputs.classes}]"
            raise UsageError(
                f"{config.model} must map [batch, {', '.join(map(str, shape))}] to {expected}, "
                f"got {list(logits.shape)}"
            )
        self.body.train()
