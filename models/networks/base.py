"""What every model shares: raw batches standardised on the device, then logits."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from shardwave.models.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a model is fed: one field of the shard set, the number of classes, and the training data's statistics."""

    field: str  # "npy" (images or a frozen network's outputs) or "features.npy"
    shape: tuple[int, ...]  # of one sample: [frequency, time], or [features]
    classes: int
    mean: Tensor  # float32, [1] for images (levels), [features] otherwise
    std: Tensor

    @property
    def images(self) -> bool:
        return len(self.shape) == 2


class Network(nn.Module):
    """Logits of a raw batch. Subclasses set `body` as a TrainConfig says; augmentation works between the two halves.

    Shape:
        input: uint8 [batch, frequency, time] levels, or float [batch, features]
        output: [batch, classes]
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
        """Standardised by the training data's mean and standard deviation: [batch, 1, frequency, time] or [batch, features]."""
        values = (batch.to(self.mean.dtype) - self.mean) / self.std
        return values.unsqueeze(1).contiguous(memory_format=torch.channels_last) if self.images else values

    def logits(self, prepared: Tensor) -> Tensor:
        return self.body(prepared)

    def forward(self, batch: Tensor) -> Tensor:
        return self.logits(self.prepare(batch))


def perceptron(width: int, config: TrainConfig, classes: int) -> nn.Sequential:
    """Hidden layers of equal width, each with ReLU and dropout, and the output layer: [batch, width] -> [batch, classes]."""
    layers: list[nn.Module] = []
    for _ in range(config.hidden_layers):
        layers += [nn.Linear(width, config.hidden_size), nn.ReLU(), nn.Dropout(config.dropout)]
        width = config.hidden_size
    return nn.Sequential(*layers, nn.Linear(width, classes))


def channels_last(network: nn.Module) -> None:
    """Lay convolution weights out as [out, height, width, in], which the CPU's and the tensor cores' kernels prefer."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def parameters(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def standardisation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the first axis, per feature; a constant feature gets 1, so that it becomes 0."""
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.ones_like(std))
