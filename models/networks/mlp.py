"""Multi-layer perceptron on feature vectors."""

from __future__ import annotations

from shardwave.models.networks.base import Inputs, Network, perceptron
from shardwave.models.training.config import TrainConfig


class Mlp(Network):
    """Multi-layer perceptron: float32 [batch, features] -> logits [batch, classes].

    Args:
        inputs: Description of the input.
        config: Training settings; `hidden_layers`, `hidden_size` and `dropout` are used.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        self.body = perceptron(inputs.shape[0], config, inputs.classes)
