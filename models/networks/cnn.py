"""Convolutional network with two convolutions."""

from __future__ import annotations

from torch import nn

from shardwave.common.errors import UsageError
from shardwave.models.networks.base import Inputs, Network, channels_last, perceptron
from shardwave.models.training.config import TrainConfig


class Cnn(Network):
    """Two convolutions with 2x2 max pooling and ReLU, then a perceptron.

    Maps uint8 [batch, frequency, time] to logits [batch, classes]. Zero padding keeps the size of the image
    in each convolution. ReLU follows the pooling: both are monotone, so the order does not change the values,
    and ReLU has a quarter of the elements to process.

    Args:
        inputs: Description of the input.
        config: Training settings; the kernels, the channels and the fields of the perceptron are used.

    Raises:
        UsageError: A kernel is larger than its input.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        height, width = inputs.shape
        layers: list[nn.Module] = []
        before, size = 1, min(height, width)
        for name, channels in (
            ("conv1_kernel", config.conv1_channels),
            ("conv2_kernel", config.conv2_channels),
        ):
            kernel = getattr(config, name)
            if kernel > size:
                raise UsageError(
                    f"{name} {kernel} is larger than its input of {size} pixels ({height}x{width} images): "
                    "use a smaller kernel, or build the set with a larger --image-size"
                )
            layers += [
                nn.Conv2d(before, channels, kernel, padding="same"),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
            before, size = channels, size // 2
        head = perceptron(before * (height // 4) * (width // 4), config, inputs.classes)
        self.body = nn.Sequential(*layers, nn.Flatten(), head)
        channels_last(self)
