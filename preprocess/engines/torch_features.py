"""Per-frame measures in PyTorch, on any device, from which `statistics` computes features."""

from __future__ import annotations

import functools

import numpy as np
import torch

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import MELS, ROLLOFF
from shardwave.preprocess.dsp.filters import chroma_bands, contrast_bands, mel_bands
from shardwave.preprocess.dsp.statistics import TINY, ordered


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


def zero_crossing_rate(
    samples: torch.Tensor, scale: float, config: SpectrogramConfig, start: int = 0, stop: int | None = None
) -> torch.Tensor:
    """Compute the fraction of sign changes in centred frames, as `measures.zero_crossings` does.

    The changes are counted once per hop. A frame of n_fft samples has n_fft - 1 places for changes: those of
    some whole hops, and the first ones of another hop.

    Args:
        samples: The clip [time] divided by `scale`, n_fft samples or more; its edge samples are repeated
            beyond its ends.
        scale: Factor of a sample before its comparison with the threshold of 1e-10.
        config: Frame size and hop.
        start: First frame.
        stop: Last frame + 1; None: the end of the clip.

    Returns:
        float32 [frames].
    """
    hop, (whole, rest) = config.hop_length, divmod(config.n_fft - 1, config.hop_length)
    stop = config.frames(len(samples)) if stop is None else stop
    frames = stop - start
    first = start * hop - config.n_fft // 2  # change i is between the samples i and i + 1
    last = first + (frames + whole) * hop
    negative = samples[max(0, first) : last + 1] < -1e-10 / scale
    changes = negative[1:] != negative[:-1]
    before = max(0, -first)
    changes = torch.nn.functional.pad(changes, (before, last - first - before - len(changes)))
    hops = changes.view(-1, hop)
    counts = hops[whole : whole + frames, :rest].sum(dim=1, dtype=torch.int32)
    if whole:
        counts += (
            hops.sum(dim=1, dtype=torch.int32).unfold(0, whole, 1)[:frames].sum(dim=1, dtype=torch.int32)
        )
    return counts.to(torch.float32) / config.n_fft
