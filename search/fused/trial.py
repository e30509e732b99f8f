"""The state of one multi-layer perceptron that the compiled trainer trains."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.precision import DTYPES


class FusedTrial:
    """A Learner whose parameters lie in one flat tensor, with the state of its optimiser.

    Attributes:
        values, gradients, means, squares: Parameters and AdamW's state, flat: per layer weight [out, in] and bias
            [out]. The parameters of the Learner's network are views of `values`.
        widths: int64 [layers + 1]; of the input and of each layer's output.
        generator: Draws the dropout masks.
    """

    def __init__(self, config: TrainConfig, data: TrainingData) -> None:
        self.config, self.field = config, data.field
        batches = data.train_batches(config)
        self.order, self.source = batches.order, batches.source
        self.learner = data.learner(config, len(self.order)).to(data.device, DTYPES[config.precision])
        self.learner.eval()  # the trainer applies dropout itself
        parameters = list(self.learner.network.body.parameters())
        self.widths = np.array([parameters[0].shape[1], *(bias.shape[0] for bias in parameters[1::2])])
        self.values = parameters_to_vector(parameters).detach()
        vector_to_parameters(self.values, parameters)
        self.gradients, self.means, self.squares = torch.zeros(3, len(self.values), dtype=self.values.dtype)
        self.generator = np.random.Generator(np.random.SFC64(config.seed))

    def rate(self, step: int) -> float:
        """The learning rate of a step (from 0)."""
        factor = self.learner.one_cycle(step) if self.config.schedule == "one-cycle" else 1.0
        return self.config.learning_rate * factor

    def draw_masks(self, steps: int, samples: int) -> np.ndarray:
        """Draw which hidden units dropout keeps; uint8 [steps, samples * hidden units], layer after layer in each row."""
        shape = (steps, samples * int(self.widths[1:-1].sum()))
        return (self.generator.random(shape, np.float32) < 1.0 - self.config.dropout).view(np.uint8)
