"""State of a perceptron during training with the compiled trainer."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.precision import DTYPES


class FusedTrial:
    """A perceptron with flat parameters and the state of its optimizer.

    Args:
        config: Settings of the training.
        data: The training data.

    Attributes:
        learner: The `Learner`; the parameters of its network are views of `values`.
        values: Parameters, flat: weight [out, in] and bias [out] of each layer.
        gradients: Gradients, of the same layout.
        means: AdamW's running means of the gradients, of the same layout.
        squares: AdamW's running means of the squared gradients, of the same layout.
        widths: int64 [layers + 1], the widths of the input and of each layer's output.
        generator: Random generator of the dropout masks.
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
        """Return the learning rate of a step, counted from 0."""
        factor = self.learner.one_cycle(step) if self.config.schedule == "one-cycle" else 1.0
        return self.config.learning_rate * factor

    def draw_masks(self, steps: int, samples: int) -> np.ndarray:
        """Draw dropout masks.

        Args:
            steps: Number of steps.
            samples: Samples per step.

        Returns:
            uint8 [steps, samples * hidden units], 1 for a kept unit; each row holds the layers one after
            another.
        """
        shape = (steps, samples * int(self.widths[1:-1].sum()))
        return (self.generator.random(shape, np.float32) < 1.0 - self.config.dropout).view(np.uint8)
