"""EfficientNet-Lite0 (Tan & Le 2019; Liu 2020): EfficientNet-B0 without attention, with ReLU6 activations.

Inverted residual blocks (Sandler et al. 2018) with the padding of TensorFlow, whose weights these are: where
a convolution has the stride 2, the right and lower borders get the larger half.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.models.networks.image_backbone import ImageBackbone

EPSILON = 1e-3  # of batch normalisation
# blocks, kernel, stride of the first block, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _SameConv(nn.Conv2d):
    """Convolution without bias whose output has the size of the input, divided by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, batch: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        sizes = []
        for size in (batch.shape[3], batch.shape[2]):
            total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            sizes += [total // 2, total - total // 2]
        return super().forward(F.pad(batch, sizes))


class _Block(nn.Module):
    """Expansion (unless it is 1), depthwise convolution and projection, with a residual connection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands, self.is_residual = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv = _SameConv(inputs, wide, 1)
            self.bn0 = nn.BatchNorm2d(wide, EPSILON)
        self.depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide)
        self.bn1 = nn.BatchNorm2d(wide, EPSILON)
        self.project_conv = _SameConv(wide, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, batch: Tensor) -> Tensor:
        out = F.relu6(self.bn0(self.expand_conv(batch))) if self.expands else batch
        out = F.relu6(self.bn1(self.depthwise_conv(out)))
        out = self.bn2(self.project_conv(out))
        result: Tensor = out + batch if self.is_residual else out
        return result


class _Features(nn.Module):
    """All layers before the pooling: [batch, 3, 224, 224] -> [batch, 1280, 7, 7]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = _SameConv(3, 32, 3, 2), nn.BatchNorm2d(32, EPSILON)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for number in range(count):
                blocks.append(_Block(channels, outputs, kernel, 1 if number else stride, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = _SameConv(channels, 1280, 1), nn.BatchNorm2d(1280, EPSILON)

    def forward(self, batch: Tensor) -> Tensor:
        out = self.blocks(F.relu6(self.bn0(self.conv_stem(batch))))
        return F.relu6(self.bn1(self.conv_head(out)))


class EfficientNetLite0Backbone(ImageBackbone):
    """Frozen part of EfficientNet-Lite0: all layers but the last one, 1,280 outputs."""

    name = "efficientnet-lite0"
    outputs = 1280
    normalisation = "(levels - 127) / 128, three equal channels"

    def __init__(self) -> None:
        super().__init__((127 / 255,) * 3, (128 / 255,) * 3)
        self.features, self.pool = _Features(), nn.AdaptiveAvgPool2d(1)
        self.freeze()

    def state_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of the layers from the published one, whose names begin with underscores."""
        counters = {
            name: value for name, value in self.features.state_dict().items() if name.endswith("tracked")
        }
        if "_conv_stem.weight" not in state:
            return {}
        names = {name: name.lstrip("_").replace("._", ".") for name in state if not name.startswith("_fc.")}
        return {**counters, **{ours: state[theirs] for theirs, ours in names.items()}}
