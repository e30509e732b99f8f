"""The report's CNN: two convolutions, each with ReLU and 2x2 max pooling, flattened into an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.network import Inputs, Network, channels_last, perceptron
from preprocess.errors import UsageError


class Cnn(Network):
    """Shape: uint8 [batch, frequency, time] -> [batch, classes].

    Convolutions keep the image's size (zero padding), square kernels of odd or even size; pooling comes before ReLU,
    which gives the same values (both are monotone) for a quarter of the work.
    """

    def __init__(
        self,
        inputs: Inputs,
        kernels: tuple[int, int],
        channels: tuple[int, int],
        hidden_size: int,
        hidden_layers: int,
        dropout: float,
    ) -> None:
        super().__init__(inputs)
        height, width = inputs.shape
        for number, (kernel, size) in enumerate(zip(kernels, (min(height, width), min(height, width) // 2), strict=True), 1):
            if kernel > size:
                raise UsageError(
                    f"conv{number}_kernel {kernel} is larger than the {size} pixels that reach it from {height}x{width} images: "
                    "use a smaller kernel, or shards with a larger --image-size"
                )
        self.body = nn.Sequential(
            nn.Conv2d(1, channels[0], kernels[0], padding="same"),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels[0], channels[1], kernels[1], padding="same"),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            perceptron(channels[1] * (height // 4) * (width // 4), hidden_size, hidden_layers, dropout, inputs.classes),
        )
        channels_last(self)

    def prepare(self, batch: Tensor) -> Tensor:
        return super().prepare(batch).contiguous(memory_format=torch.channels_last)
