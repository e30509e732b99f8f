"""Base class of all networks, and helpers to build them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from shardwave.models.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Describe the input of a network.

    Args:
        field: Array field of the samples: "npy" (images, or the outputs of a frozen network) or a field of
            vectors such as "features.npy".
        shape: Shape of one sample: (frequency, time) or (features,).
        classes: Number of classes.
        mean: Mean of the training data, float32: [1], in levels, for images, [features] for vectors.
        std: Standard deviation of the training data, with the shape of `mean`.
    """

    field: str
    shape: tuple[int, ...]
    classes: int
    mean: Tensor
    std: Tensor

    @property
    def images(self) -> bool:
        """Whether a sample is an image."""
        return len(self.shape) == 2


class Network(nn.Module):
    """Map raw batches to logits: `prepare` standardises a batch, `logits` applies `body`.

    Subclasses set `body`. Training augments the batch between `prepare` and `logits`. The module takes uint8
    [batch, frequency, time] (levels) or float [batch, features] and returns logits [batch, classes].

    Args:
        inputs: Description of the input.
    """

    body: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.images = inputs.images
        self.register_buffer("mean", inputs.mean.clone())
        self.register_buffer("std", inputs.std.clone())

    def prepare(self, batch: Tensor) -> Tensor:
        """Standardise a raw batch with the mean and the standard deviation of the training data.

        Args:
            batch: uint8 [batch, frequency, time] or float [batch, features].

        Returns:
            [batch, 1, frequency, time] or [batch, features], in the dtype of the buffer `mean`.
        """
        values = (batch.to(self.mean.dtype) - self.mean) / self.std
        return values.unsqueeze(1).contiguous(memory_format=torch.channels_last) if self.images else values

    def logits(self, prepared: Tensor) -> Tensor:
        """Map a batch as returned by `prepare` to logits [batch, classes]."""
        logits: Tensor = self.body(prepared)
        return logits

    def forward(self, batch: Tensor) -> Tensor:
        """Map a raw batch to logits [batch, classes]."""
        return self.logits(self.prepare(batch))


def perceptron(width: int, config: TrainConfig, classes: int) -> nn.Sequential:
    """Build a multi-layer perceptron: [batch, width] -> logits [batch, classes].

    Args:
        width: Size of the input.
        config: Training settings; each of the `hidden_layers` has `hidden_size` units, ReLU and `dropout`.
        classes: Size of the output.

    Returns:
        A module without softmax; its output is [batch, classes].
    """
    layers: list[nn.Module] = []
    for _ in range(config.hidden_layers):
        layers += [nn.Linear(width, config.hidden_size), nn.ReLU(), nn.Dropout(config.dropout)]
        width = config.hidden_size
    return nn.Sequential(*layers, nn.Linear(width, classes))


def channels_last(network: nn.Module) -> None:
    """Convert convolution weights to the channels-last format, which is faster on CPUs and tensor cores."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def standardisation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and the standard deviation of each feature.

    Args:
        values: Samples, float [samples, features].

    Returns:
        Mean [features] and population standard deviation [features]. The latter is 1 for a constant feature,
        which standardisation thus maps to 0.
    """
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.ones_like(std))
