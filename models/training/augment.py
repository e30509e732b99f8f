"""Augmentation of batches on their device, with PyTorch's default generator of that device."""

from __future__ import annotations

import math

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


def mix_powers(levels: Tensor, floor_db: float, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mix images with others of the batch, as sums of powers with a ratio of its own for each pair.

    Between-class learning (Tokozume, Ushiku, Harada 2018, equation 2) mixes two sounds x1, x2 of the
    pressures g1, g2 as (p x1 + (1 - p) x2) / sqrt(p² + (1 - p)²), p = 1 / (1 + g1 / g2 (1 - r) / r), so that
    the sounds are heard in the ratio r. Here the sounds are incoherent: their powers are added, with squared
    weights.

    Args:
        levels: Pixel values, [batch, frequency, time].
        floor_db: Level of the pixel value 0 in dB; 255 is 0 dB.
        share: Fraction of the images that are mixed.

    Returns:
        The mixed pixel values, float32; the index of each image's partner, int64 [batch]; and the ratio of
        the image's own label, uniform in [0, 1], or 1 if it is not mixed. float32 [batch].
    """
    count, device = len(levels), levels.device
    ratio = torch.rand(count, device=device)
    ratio = torch.where(torch.rand(count, device=device) < share, ratio, torch.ones_like(ratio))
    partner = torch.randperm(count, device=device)
    power = torch.exp(((levels.float() / 255 - 1) * -floor_db) * (math.log(10) / 10))
    pressure = power.mean((1, 2)).sqrt()
    own, other = ratio * pressure[partner], (1 - ratio) * pressure
    weight, rest = (own / (own + other)).square(), (other / (own + other)).square()
    mixed = weight[:, None, None] * power + rest[:, None, None] * power[partner]
    mixed = mixed / (weight + rest)[:, None, None]
    mixed_levels = 255 * (1 - 10 / floor_db * torch.log10(mixed))
    return mixed_levels.clamp_(0, 255), partner, ratio


def random_gain(levels: Tensor, floor_db: float, most: float) -> Tensor:
    """Add a random gain to each image.

    Args:
        levels: Pixel values, [batch, frequency, time].
        floor_db: Level of the pixel value 0 in dB; 255 is 0 dB.
        most: Greatest gain in dB; the gain is uniform from its negative to it.

    Returns:
        The pixel values, float32; values below 0 are 0, values above 255 are kept.
    """
    gain = (2 * torch.rand(len(levels), device=levels.device) - 1) * (most * 255 / -floor_db)
    return (levels.float() + gain[:, None, None]).clamp_min_(0)


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
