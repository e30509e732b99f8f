"""VGG16 (Simonyan & Zisserman 2015): its frozen convolutions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shardwave.models.networks.image_backbone import ImageBackbone


class Vgg16Backbone(ImageBackbone):
    """Frozen part of VGG16: torchvision's `features` and `avgpool`, at first with uninitialised weights."""

    name = "vgg16"
    outputs = 512 * 7 * 7
    normalisation = "levels / 255, ImageNet mean and std, three equal channels"

    def __init__(self) -> None:
        super().__init__((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        from torchvision.models import vgg16

        with torch.device("meta"):  # allocates no classifier, which has 90 % of the weights and is not used
            full = vgg16(weights=None)
        self.features, self.pool = full.features.to_empty(device="cpu"), full.avgpool
        self.freeze()

    def state_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of the convolutions from one of torchvision's vgg16."""
        begin = "features."
        return {name.removeprefix(begin): value for name, value in state.items() if name.startswith(begin)}
