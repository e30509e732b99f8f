"""The report's CNN: two convolutions, each with ReLU and 2x2 max pooling, flattened into an MLP."""

from __future__ import annotations

from torch import nn

from shardwave.common.errors import UsageError
from shardwave.models.networks.base import Inputs, Network, channels_last, perceptron
from shardwave.models.training.config import TrainConfig


class Cnn(Network):
    """Shape: uint8 [batch, frequency, time] -> [batch, classes].

    Convolutions keep the image's size (zero padding), square kernels of odd or even size; pooling comes before ReLU,
    which gives the same values (both are monotone) for a quarter of the work.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        height, width = inputs.shape
        layers: list[nn.Module] = []
        before, size = 1, min(height, width)
        for name, channels in (("conv1_kernel", config.conv1_channels), ("conv2_kernel", config.conv2_channels)):
            kernel = getattr(config, name)
            if kernel > size:
                raise UsageError(
                    f"{name} {kernel} is larger than the {size} pixels that reach it from {height}x{width} images: "
                    "use a smaller kernel, or shards with a larger --image-size"
                )
            layers += [nn.Conv2d(before, channels, kernel, padding="same"), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
            before, size = channels, size // 2
        head = perceptron(before * (height // 4) * (width // 4), config, inputs.classes)
        self.body = nn.Sequential(*layers, nn.Flatten(), head)
        channels_last(self)
