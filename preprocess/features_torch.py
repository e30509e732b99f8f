"""Features in torch, batched, on any device: measures from power spectra, and features from measures."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from preprocess.config import SpectrogramConfig
from preprocess.features import AMIN, CHROMA, MELS, MFCCS, ROLLOFF, TOP_DB, contrast_count
from preprocess.filters import chroma_bands, contrast_bands, mel_bands

TINY = float(np.finfo(np.float32).tiny)


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


def features(
    measures: torch.Tensor, rates: torch.Tensor, bounds: Sequence[tuple[int, int]], config: SpectrogramConfig
) -> torch.Tensor:
    """Measures [batch, rows, frames] and zero-crossing rates [batch, 1, frames] → features [batch, 1 + slices, columns].

    Row 0 holds the whole clip, row 1 + i the frames [start, stop) of bounds[i].
    """
    contrasts = contrast_count(config.sample_rate)
    mel, chroma, shape, rolloff, peak, valley = measures.split([MELS, CHROMA, 2, 1, contrasts, contrasts], dim=1)
    mfcc = _dct(measures.device, measures.dtype) @ _decibels(mel)
    largest = chroma.amax(dim=1, keepdim=True)
    chroma = chroma / torch.where(largest < TINY, 1.0, largest)
    rolloff = rolloff.clamp_max(config.bins - 1) * (config.sample_rate / config.n_fft)
    rows = torch.cat([mfcc, chroma, shape, _decibels(peak) - _decibels(valley), rolloff, rates], dim=1)
    return torch.stack([_statistics(rows[:, :, start:stop]) for start, stop in [(0, rows.shape[2]), *bounds]], dim=1)


def _decibels(power: torch.Tensor) -> torch.Tensor:
    """librosa.power_to_db(ref=1, amin=1e-10, top_db=80); the range is each clip's own."""
    level = 10 * power.clamp_min(AMIN).log10()
    return torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - TOP_DB)


@functools.lru_cache(maxsize=8)
def _dct(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Orthonormal DCT-II on the device: [MFCCS, MELS]."""
    k, n = np.arange(MFCCS)[:, None], np.arange(MELS)
    matrix = np.cos(np.pi * k * (n + 0.5) / MELS) * np.where(k == 0, np.sqrt(1 / MELS), np.sqrt(2 / MELS))
    return torch.tensor(matrix, device=device, dtype=dtype)


def _statistics(rows: torch.Tensor) -> torch.Tensor:
    """[batch, rows, frames] → mean, standard deviation, minimum, median, maximum of each row: [batch, rows * 5]."""
    frames = rows.shape[2]
    median = rows.kthvalue((frames + 1) // 2, dim=2).values
    if frames % 2 == 0:
        median = (median + rows.kthvalue(frames // 2 + 1, dim=2).values) / 2
    deviation, mean = torch.std_mean(rows, dim=2, correction=0)
    return torch.stack([mean, deviation, rows.amin(dim=2), median, rows.amax(dim=2)], dim=2).flatten(1)
