"""Per-frame measures in PyTorch, on any device, from which `statistics` computes features."""

from __future__ import annotations

import functools

import numpy as np
import torch

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import MELS, ROLLOFF
from shardwave.preprocess.dsp.filters import chroma_bands, contrast_bands, mel_bands
from shardwave.preprocess.dsp.statistics import TINY, ordered

PART = 1 << 12  # frames that one sum of sign changes counts


@functools.lru_cache(maxsize=8)
def _banks(
    config: SpectrogramConfig, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mel and chroma filters [bins, 128 + 12] and the frequencies of the bins in Hz, on the device."""
    filters = [
        mel_bands(config.sample_rate, config.n_fft, MELS),
        chroma_bands(config.sample_rate, config.n_fft),
    ]
    frequency = np.arange(config.bins) * (config.sample_rate / config.n_fft)
    return torch.tensor(np.concatenate(filters).T, device=device, dtype=dtype), torch.tensor(
        frequency, device=device, dtype=dtype
    )


def measure(power: torch.Tensor, config: SpectrogramConfig) -> torch.Tensor:
    """Compute the per-frame measures of the features, as `measures.measure_block` does for the numba engine.

    Args:
        power: Power spectra [frames, bins].
        config: Rate and transform size of the spectra.

    Returns:
        [frames, measures], in the order of `features.measure_count`.
    """
    bank, frequency = _banks(config, power.device, power.dtype)
    magnitude = power.sqrt()
    total = magnitude.sum(dim=1, keepdim=True)
    norm = total.clamp_min(TINY)
    centroid = (magnitude @ frequency)[:, None] / norm
    bandwidth = ((magnitude * (frequency - centroid).square_()).sum(dim=1, keepdim=True) / norm).sqrt()
    below = (magnitude.cumsum(dim=1) < ROLLOFF * total).sum(dim=1, keepdim=True, dtype=power.dtype)
    peaks, valleys = [], []
    for low, high, count in zip(
        *(edges.tolist() for edges in contrast_bands(config.sample_rate, config.n_fft)), strict=True
    ):
        band = ordered(magnitude[:, low:high].contiguous())
        peaks.append(band[:, -count:].mean(dim=1, keepdim=True))
        valleys.append(band[:, :count].mean(dim=1, keepdim=True))
    return torch.cat([power @ bank, centroid, bandwidth, below, *peaks, *valleys], dim=1)


def zero_crossing_rate(samples: torch.Tensor, scale: float, config: SpectrogramConfig) -> torch.Tensor:
    """Compute the fraction of sign changes in each centred frame, as `measures.zero_crossings` does.

    Args:
        samples: The clip [time] divided by `scale`, n_fft samples or more; its edge samples are repeated
            beyond its ends.
        scale: Factor of a sample before its comparison with the threshold of 1e-10.
        config: Frame size and hop.

    Returns:
        float32 [frames].
    """
    negative = samples < -1e-10 / scale
    changes = torch.nn.functional.pad(negative[1:] != negative[:-1], (config.n_fft // 2, config.n_fft // 2))
    windows = changes.unfold(0, config.n_fft - 1, config.hop_length)
    # on the CPU, a sum converts its input first
    counts = [
        windows[start : start + PART].sum(dim=1, dtype=torch.int32) for start in range(0, len(windows), PART)
    ]
    return torch.cat(counts).to(torch.float32) / config.n_fft
