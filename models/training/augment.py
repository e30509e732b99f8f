"""Augmentation of batches on their device, with PyTorch's default generator of that device."""

from __future__ import annotations

import torch
from torch import Tensor


def time_shift(images: Tensor) -> Tensor:
    """Roll each image along time by a random amount: [batch, 1, frequency, time] -> the same shape."""
    batch, _, height, width = images.shape
    shift = torch.randint(width, (batch, 1), device=images.device)
    source = (torch.arange(width, device=images.device) - shift) % width
    return images.gather(3, source[:, None, None, :].expand(batch, 1, height, width))


def mask(images: Tensor, axis: int, widest: float) -> Tensor:
    """Mask a random band of each image (SpecAugment, Park et al. 2019).

    Args:
        images: Standardised images, [batch, 1, frequency, time].
        axis: Axis of the band: 2 for frequency, 3 for time.
        widest: Maximum width of the band, as a fraction of the axis.

    Returns:
        The masked images. The mask value is 0, the mean level of the training data.
    """
    from torchaudio.functional import mask_along_axis_iid  # imported late: most models do not use masks

    masked: Tensor = mask_along_axis_iid(images, int(widest * images.shape[axis]) + 1, 0.0, axis)
    return masked


def mixup(samples: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each sample with another one of the batch (mixup, Zhang et al. 2018), with one weight per batch.

    Args:
        samples: [batch, ...].
        alpha: Parameter of Beta(alpha, alpha), from which the weight is drawn.

    Returns:
        The mixed samples, the index of each sample's partner (int64 [batch]), and the weight of the sample's
        own label (0.5 to 1).
    """
    # Filled on the device: with a copy from the host or a check of the values, each step would wait for
    # the GPU
    concentration = torch.full((), alpha, device=samples.device)
    weight = torch.distributions.Beta(concentration, concentration, validate_args=False).sample()
    weight = torch.maximum(weight, 1 - weight)
    partner = torch.randperm(len(samples), device=samples.device)
    return torch.lerp(samples[partner], samples, weight.to(samples.dtype)), partner, weight
