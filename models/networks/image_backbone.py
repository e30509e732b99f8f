"""Base class of the frozen image networks, and a classifier on their outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.models.networks.mlp import Mlp

SIZE = 224  # pixels; height and width of the images that the weights were trained on


class ImageBackbone(nn.Module, ABC):
    """Frozen part of an image network: uint8 [batch, frequency, time] -> float [batch, outputs].

    Subclasses set `features` and `pool`. A new object has no trained weights: load a state dict into
    `features`, or call `initialise`.

    Args:
        mean: Mean by colour of the images that the weights were trained on, for values in 0 to 1.
        std: Standard deviation, as `mean`.
    """

    name: ClassVar[str]
    outputs: ClassVar[int]  # values per image
    cut: ClassVar[str] = "avgpool"  # last layer of the frozen part
    normalisation: ClassVar[str]  # of the images, in words
    features: nn.Module
    pool: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def freeze(self) -> None:
        """Exclude the parameters from training, and use the stored statistics of batch normalisation."""
        self.requires_grad_(False)
        self.eval()

    @abstractmethod
    def state_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a published state dict to that of `features`; empty if it is that of another network."""

    def initialise(self, seed: int = 0) -> None:
        """Draw random weights as torchvision does (He et al. 2015, fan out)."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.features.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(
                    layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def train(self, mode: bool = True) -> ImageBackbone:
        """Stay in evaluation mode, since the module is frozen."""
        return super().train(False)

    def forward(self, batch: Tensor) -> Tensor:
        """Map images, uint8 [batch, frequency, time], to outputs, float [batch, outputs]."""
        return torch.flatten(self.pool(self.features(self.prepare(batch))), 1)

    def prepare(self, batch: Tensor) -> Tensor:
        """Convert uint8 [batch, frequency, time] to normalised [batch, 3, 224, 224]."""
        grey = batch.to(self.mean.dtype).unsqueeze(1) / 255
        if grey.shape[-2:] != (SIZE, SIZE):
            grey = F.interpolate(grey, (SIZE, SIZE), mode="bilinear", antialias=True)
        return (grey - self.mean) / self.std


class TransferHead(Mlp):
    """Trained classifier on a frozen network: float [batch, outputs] -> logits [batch, classes].

    Args:
        inputs: Description of the input, the outputs of an `ImageBackbone`.
        config: Training settings; `hidden_layers`, `hidden_size` and `dropout` are used.
    """

    def prepare(self, batch: Tensor) -> Tensor:
        """Convert the dtype only: torchvision's classifier takes the outputs without standardisation."""
        return batch.to(self.mean.dtype)


class Transfer(nn.Module):
    """Frozen network and classifier: uint8 [batch, frequency, time] -> logits [batch, classes].

    Args:
        backbone: Frozen part.
        head: Trained classifier.
    """

    def __init__(self, backbone: ImageBackbone, head: TransferHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, batch: Tensor) -> Tensor:
        """Map images, uint8 [batch, frequency, time], to logits [batch, classes]."""
        logits: Tensor = self.head(self.backbone(batch))
        return logits
