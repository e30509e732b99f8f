"""VGG16 (Simonyan & Zisserman 2015) with its convolutions frozen and its classifier replaced by a three-layer MLP.

The frozen part's outputs are computed once (`shardwave.models.networks.backbone`); what is trained is the head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.models.networks.mlp import Mlp

SIZE = 224  # pixels that the weights expect
OUTPUTS = 512 * 7 * 7  # values that the convolutions and their average pooling leave
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for values in 0 to 1


class Vgg16Head(Mlp):
    """The classifier: Linear, ReLU, dropout, twice, and Linear. Shape: float [batch, 25088] -> [batch, classes]."""

    def prepare(self, batch: Tensor) -> Tensor:
        return batch.to(self.mean.dtype)  # as torchvision's classifier takes them


class Vgg16Backbone(nn.Module):
    """torchvision's `features` and `avgpool`, frozen; built without weights: load them, or `initialise`.

    Shape: uint8 [batch, frequency, time] -> float [batch, 25088].
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg16

        with torch.device("meta"):  # the classifier that is thrown away has nine tenths of the weights
            full = vgg16(weights=None)
        self.features, self.pool = full.features.to_empty(device="cpu"), full.avgpool
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def initialise(self, seed: int = 0) -> None:
        """Untrained weights, as torchvision draws them (He et al. 2015, fan out)."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def train(self, mode: bool = True) -> Vgg16Backbone:
        return super().train(False)  # frozen: it has no dropout or statistics to switch, and stays so

    def forward(self, batch: Tensor) -> Tensor:
        return torch.flatten(self.pool(self.features(self.prepare(batch))), 1)

    def prepare(self, batch: Tensor) -> Tensor:
        """Levels to 224x224 (antialiased bilinear), three equal channels, ImageNet's normalisation."""
        grey = batch.to(self.mean.dtype).unsqueeze(1) / 255
        if grey.shape[-2:] != (SIZE, SIZE):
            grey = F.interpolate(grey, (SIZE, SIZE), mode="bilinear", antialias=True)
        return (grey - self.mean) / self.std


class Vgg16(nn.Module):
    """Backbone and trained head together, for images of which no outputs are cached.

    Shape: uint8 [batch, frequency, time] -> [batch, classes].
    """

    def __init__(self, backbone: Vgg16Backbone, head: Vgg16Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(self.backbone(batch))
