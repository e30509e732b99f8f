"""VGG16 (Simonyan & Zisserman 2015) with frozen convolutions and a multi-layer perceptron as the classifier.

Only the classifier is trained. `shardwave.models.networks.backbone` computes and stores the outputs of the
frozen part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.models.networks.mlp import Mlp

SIZE = 224  # pixels; height and width of the images that torchvision's weights were trained on
OUTPUTS = 512 * 7 * 7  # values per image after the convolutions and the average pooling
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for values in 0 to 1


class Vgg16Head(Mlp):
    """Trained classifier of VGG16: float [batch, 25088] -> logits [batch, classes].

    Args:
        inputs: Description of the input, the outputs of `Vgg16Backbone`.
        config: Training settings; `hidden_layers`, `hidden_size` and `dropout` are used.
    """

    def prepare(self, batch: Tensor) -> Tensor:
        """Convert the dtype only: torchvision's classifier takes the outputs without standardisation."""
        return batch.to(self.mean.dtype)


class Vgg16Backbone(nn.Module):
    """Frozen part of VGG16: torchvision's `features` and `avgpool`.

    Maps uint8 [batch, frequency, time] to float [batch, 25088]. A new object has uninitialised weights: load
    a state dict into `features`, or call `initialise`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg16

        with torch.device("meta"):  # allocates no classifier, which has 90 % of the weights and is not used
            full = vgg16(weights=None)
        self.features, self.pool = full.features.to_empty(device="cpu"), full.avgpool
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def initialise(self, seed: int = 0) -> None:
        """Draw random weights as torchvision does (He et al. 2015, fan out)."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(
                    layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def train(self, mode: bool = True) -> Vgg16Backbone:
        """Stay in evaluation mode, since the module is frozen."""
        return super().train(False)

    def forward(self, batch: Tensor) -> Tensor:
        """Map images, uint8 [batch, frequency, time], to outputs, float [batch, 25088]."""
        return torch.flatten(self.pool(self.features(self.prepare(batch))), 1)

    def prepare(self, batch: Tensor) -> Tensor:
        """Convert uint8 [batch, frequency, time] to [batch, 3, 224, 224] with ImageNet's normalisation."""
        grey = batch.to(self.mean.dtype).unsqueeze(1) / 255
        if grey.shape[-2:] != (SIZE, SIZE):
            grey = F.interpolate(grey, (SIZE, SIZE), mode="bilinear", antialias=True)
        return (grey - self.mean) / self.std


class Vgg16(nn.Module):
    """Complete VGG16: uint8 [batch, frequency, time] -> logits [batch, classes].

    Args:
        backbone: Frozen part.
        head: Trained classifier.
    """

    def __init__(self, backbone: Vgg16Backbone, head: Vgg16Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, batch: Tensor) -> Tensor:
        """Map images, uint8 [batch, frequency, time], to logits [batch, classes]."""
        logits: Tensor = self.head(self.backbone(batch))
        return logits
