"""Augmentation of batches on their device. All randomness comes from PyTorch's default generator of that device."""

from __future__ import annotations

import torch
from torch import Tensor


def time_shift(images: Tensor) -> Tensor:
    """Roll each image along time by a random amount. Shape: [batch, 1, frequency, time]."""
    batch, _, height, width = images.shape
    shift = torch.randint(width, (batch, 1), device=images.device)
    source = (torch.arange(width, device=images.device) - shift) % width
    return images.gather(3, source[:, None, None, :].expand(batch, 1, height, width))


def mask(images: Tensor, axis: int, widest: float) -> Tensor:
    """SpecAugment (Park et al. 2019): zero a band of random width, up to `widest` of the axis, at a random place of each image.

    Shape: [batch, 1, frequency, time]; axis 2 or 3. Zero is the training data's mean level.
    """
    from torchaudio.functional import mask_along_axis_iid  # most trainings do without its import

    return mask_along_axis_iid(images, int(widest * images.shape[axis]) + 1, 0.0, axis)


def mixup(samples: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup (Zhang et al. 2018), one weight per batch.

    Returns the mixed samples, the partners' positions (int64 [batch]) and the weight of the own label (0.5 to 1).
    """
    weight = torch.distributions.Beta(torch.tensor(alpha, device=samples.device), alpha, validate_args=False).sample()
    weight = torch.maximum(weight, 1 - weight)
    partner = torch.randperm(len(samples), device=samples.device)
    return torch.lerp(samples[partner], samples, weight.to(samples.dtype)), partner, weight
