"""Compact convolutional network with batch normalisation and global pooling."""

from __future__ import annotations

from torch import Tensor, nn

from shardwave.common.errors import UsageError
from shardwave.models.networks.base import Inputs, Network, channels_last
from shardwave.models.training.config import TrainConfig

BLOCKS = 4


class CnnPlus(Network):
    """Four convolutional blocks, global pooling, dropout and a linear layer.

    Maps uint8 [batch, frequency, time] to logits [batch, classes]. A block consists of a convolution, batch
    normalisation, ReLU and 2x2 average pooling; each block has twice the channels of the one before. The
    first convolution has stride 2. The global pooling is that of PANNs (Kong et al. 2020): the mean over
    frequency, then the sum of the maximum and the mean over time.

    Args:
        inputs: Description of the input.
        config: Training settings; `conv1_kernel`, `conv1_channels` and `dropout` are used.

    Raises:
        UsageError: The images are smaller than 32x32 pixels.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        smallest = 2 ** (BLOCKS + 1)
        if min(inputs.shape) < smallest:
            height, width = inputs.shape
            raise UsageError(
                f"cnn-plus needs images of at least {smallest}x{smallest}, got {height}x{width}: "
                "build the set with a larger --image-size"
            )
        layers: list[nn.Module] = []
        before, after = 1, config.conv1_channels
        for block in range(BLOCKS):
            size, stride = (config.conv1_kernel, 2) if block == 0 else (3, 1)
            layers += [
                nn.Conv2d(before, after, size, stride, size // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
            before, after = after, 2 * after
        self.body = nn.Sequential(
            *layers, _Pool(), nn.Dropout(config.dropout), nn.Linear(before, inputs.classes)
        )
        channels_last(self)


class _Pool(nn.Module):
    """Pool [batch, channels, frequency, time] to [batch, channels]."""

    def forward(self, values: Tensor) -> Tensor:
        frames = values.mean(2)
        return frames.mean(2) + frames.amax(2)
