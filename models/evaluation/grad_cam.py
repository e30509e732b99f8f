"""Grad-CAM: the places of an image that raise the logit of a class.

The maps are those of HiResCAM (Draelos & Carin 2020), which multiplies each activation by its own gradient.
Grad-CAM (Selvaraju et al. 2017) averages the gradients over the image first. This is the same for a network
that ends in a mean over the image and a linear layer, and displaces the maps of a network like `cnn`, whose
first linear layer has other weights for every place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.common.errors import UsageError
from shardwave.models.training.numerics import fixed_numerics

VALUES = 1 << 20  # of the images that the network takes at a time; bounds its memory
PLACES = 14  # least height and width of the maps; with fewer, they do not show where the evidence is
_POOLING = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # lower the resolution of a map without another content


@fixed_numerics()
def grad_cam(network: nn.Module, images: Tensor, cls: int) -> np.ndarray:
    """Compute where images contain evidence for a class.

    Args:
        network: Maps uint8 [images, frequency, time] to logits [images, classes]; in evaluation mode, on the
            CPU.
        images: Images, uint8 [images, frequency, time].
        cls: Index of the class.

    Returns:
        Maps, float32 [images, frequency, time]: the sum over channels of activation times gradient of the
        logit, negative values cut to 0, resized from the last layer with at least `PLACES` x `PLACES` values
        per channel (the last layer with maps if none has as many).

    Raises:
        UsageError: No layer of the network returns feature maps.
    """
    layer = _last_maps(network, images[:1])
    parts = torch.split(images, max(1, VALUES // images[0].numel()))
    return np.concatenate([_maps(network, layer, part, cls) for part in parts])


def _maps(network: nn.Module, layer: nn.Module, images: Tensor, cls: int) -> np.ndarray:
    captured: list[Tensor] = []

    def capture(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        captured.append(output.detach().requires_grad_())  # frozen layers before it need no gradient
        return captured[-1]

    handle = layer.register_forward_hook(capture)
    try:
        with torch.enable_grad():
            logits = network(images)
            (gradient,) = torch.autograd.grad(logits[:, cls].sum(), captured[-1])
    finally:
        handle.remove()
    maps = (captured[-1].detach() * gradient).sum(1, keepdim=True).clamp_min(0).float()
    resized = F.interpolate(maps, images.shape[1:], mode="bilinear", align_corners=False)
    values: np.ndarray = resized[:, 0].numpy()
    return values


def _last_maps(network: nn.Module, images: Tensor) -> nn.Module:
    """Return the last layer whose maps [images, channels, height, width] are large enough; no pooling."""
    layers: list[nn.Module] = []
    large: list[nn.Module] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and not isinstance(module, _POOLING):
            layers.append(module)
            if min(output.shape[2:]) >= PLACES:
                large.append(module)

    handles = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not layers:
        raise UsageError("no layer of the network returns feature maps [batch, channels, height, width]")
    return (large or layers)[-1]
