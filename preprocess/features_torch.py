"""Per-frame measures from power spectra and samples in torch, batched, on any device; `statistics` makes features of them."""

from __future__ import annotations

import functools

import numpy as np
import torch

from preprocess.config import SpectrogramConfig
from preprocess.features import MELS, ROLLOFF
from preprocess.filters import chroma_bands, contrast_bands, mel_bands
from preprocess.statistics import TINY


@functools.lru_cache(maxsize=8)
def _banks(config: SpectrogramConfig, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """On the device: mel and chroma filters [128 + 12, bins], and the bins' frequencies in Hz [bins, 1]."""
    filters = [mel_bands(config.sample_rate, config.n_fft, MELS), chroma_bands(config.sample_rate, config.n_fft)]
    frequency = np.arange(config.bins)[:, None] * (config.sample_rate / config.n_fft)
    return torch.tensor(np.concatenate(filters), device=device, dtype=dtype), torch.tensor(frequency, device=device, dtype=dtype)


def measure(power: torch.Tensor, config: SpectrogramConfig) -> torch.Tensor:
    """Power [batch, bins, frames] → measures [batch, rows, frames], in the order of `features.measure_count` (the twin of
    `measures.measure_block`).
    """
    bank, frequency = _banks(config, power.device, power.dtype)
    magnitude = power.sqrt()
    total = magnitude.sum(dim=1, keepdim=True)
    norm = total.clamp_min(TINY)
    centroid = (magnitude * frequency).sum(dim=1, keepdim=True) / norm
    bandwidth = ((magnitude * (frequency - centroid).square()).sum(dim=1, keepdim=True) / norm).sqrt()
    below = (magnitude.cumsum(dim=1) < ROLLOFF * total).sum(dim=1, keepdim=True, dtype=power.dtype)
    peaks, valleys = [], []
    for low, high, count in zip(*contrast_bands(config.sample_rate, config.n_fft), strict=True):
        band = magnitude[:, low:high]
        peaks.append(band.topk(int(count), dim=1, sorted=False).values.mean(dim=1, keepdim=True))
        valleys.append(band.topk(int(count), dim=1, largest=False, sorted=False).values.mean(dim=1, keepdim=True))
    return torch.cat([bank @ power, centroid, bandwidth, below, *peaks, *valleys], dim=1)


def zero_crossing_rate(samples: torch.Tensor, config: SpectrogramConfig) -> torch.Tensor:
    """Samples [batch, time], n_fft or more → fraction of sign changes per centred frame [batch, 1, frames] (the twin of
    `measures.zero_crossings`).
    """
    negative = samples < -1e-10
    changes = torch.nn.functional.pad((negative[:, 1:] != negative[:, :-1]).to(torch.int32).cumsum(dim=1), (1, 0))
    start = torch.arange(config.frames(samples.shape[1]), device=samples.device) * config.hop_length - config.n_fft // 2
    last = samples.shape[1] - 1
    inside = changes[:, (start + config.n_fft - 1).clamp_max(last)] - changes[:, start.clamp(0, last)]
    return inside[:, None].to(torch.float32) / config.n_fft
