"""The report's MLP: features -> hidden layers of equal width, ReLU, dropout -> classes."""

from __future__ import annotations

from models.config import TrainConfig
from models.network import Inputs, Network, perceptron


class Mlp(Network):
    """Shape: float32 [batch, features] -> [batch, classes]. Inputs are standardised by training statistics kept as buffers."""

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        self.body = perceptron(inputs.shape[0], config, inputs.classes)
