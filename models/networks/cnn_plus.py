"""A compact modern network for spectrograms: strided blocks with batch normalisation, pooled over frequency, then over time."""

from __future__ import annotations

from torch import Tensor, nn

from shardwave.common.errors import UsageError
from shardwave.models.networks.base import Inputs, Network, channels_last
from shardwave.models.training.config import TrainConfig

BLOCKS = 4


class CnnPlus(Network):
    """Shape: uint8 [batch, frequency, time] -> [batch, classes].

    Convolution, batch normalisation, ReLU and 2x2 average pooling, four times, the width doubling; the first convolution has
    stride 2. Pooled as in PANNs (Kong et al. 2020): mean over frequency, then maximum plus mean over time.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__(inputs)
        smallest = 2 ** (BLOCKS + 1)
        if min(inputs.shape) < smallest:
            height, width = inputs.shape
            raise UsageError(
                f"cnn-plus needs images of at least {smallest}x{smallest}, got {height}x{width}: use a larger --image-size"
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
        self.body = nn.Sequential(*layers, _Pool(), nn.Dropout(config.dropout), nn.Linear(before, inputs.classes))
        channels_last(self)


class _Pool(nn.Module):
    """[batch, channels, frequency, time] -> [batch, channels]."""

    def forward(self, values: Tensor) -> Tensor:
        frames = values.mean(2)
        return frames.mean(2) + frames.amax(2)
