"""The report's MLP: features -> hidden layers of equal width, ReLU, dropout -> classes."""

from __future__ import annotations

from shardwave.models.networks.base import Inputs, Network, perceptron
from shardwave.models.training.config import TrainConfig


class Mlp(Network):
    """Shape: float32 [batch, features] -> [batch, classes]. Inputs are standardised by training statistics kept as buffers."""

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        self.body = perceptron(inputs.shape[0], config, inputs.classes)
