"""The definition: slow NumPy in double precision. Every other engine is held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.filters import frequency_bands, resize_matrix
from shardwave.preprocess.engines.base import Engine, EngineOutput, fit_clip


class ReferenceEngine(Engine):
    """Images by the equations of the design, one clip at a time."""

    name = "reference"
    device = "cpu"

    def __init__(self, config: SpectrogramConfig):
        self.config = config

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        size, floor = self.config.image_size, self.config.floor_db
        full, slices, features = np.empty((len(clips), size, size), np.uint8), [], []
        for i, clip in enumerate(clips):
            bounds = self.config.slice_bounds(len(clip))
            clip = fit_clip(clip, self.config)
            lines = along_frequency(decibels(clip, self.config), size)
            full[i] = image(lines, floor)
            slices.append(np.empty((len(bounds), size, size), np.uint8))
            for part, (start, stop) in zip(slices[-1], bounds, strict=True):
                part[:] = image(lines[:, start:stop], floor)
            if self.config.features:
                features.append(_features(clip, bounds, self.config))
        return EngineOutput(full, slices, features if self.config.features else None)


def power(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """|STFT|² of a clip [time]: float64 [bins, frames]; centred, reflect padding, periodic Hann."""
    samples = np.asarray(clip, np.float64)
    samples = np.pad(samples, (0, max(0, config.n_fft - len(samples))))
    samples = np.pad(samples, config.n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)[:: config.hop_length]
    columns = [np.abs(np.fft.rfft(frame * window)) ** 2 for frame in frames]
    return np.stack(columns, axis=1)


def decibels(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """dB relative to the clip's maximum, no lower than floor_db: float64 [frequency, frames]; a silent clip is all floor."""
    bands = frequency_bands(config)
    spectrum = power(clip, config)
    if bands is not None:
        spectrum = bands.astype(np.float64) @ spectrum
    peak = spectrum.max()
    if peak == 0:
        return np.full_like(spectrum, config.floor_db)
    with np.errstate(divide="ignore"):
        return np.maximum(10 * np.log10(spectrum / peak), config.floor_db)


def along_frequency(level: np.ndarray, size: int) -> np.ndarray:
    """dB [frequency, frames] → [size, frames]."""
    return resize_matrix(level.shape[0], size).astype(np.float64) @ level


def image(lines: np.ndarray, floor_db: float) -> np.ndarray:
    """dB [size, frames] → uint8 [size, size]: resized along time; 0 = the floor, 255 = 0 dB, rounded half up."""
    resized = lines @ resize_matrix(lines.shape[1], len(lines)).astype(np.float64).T
    return np.clip(np.floor((resized - floor_db) * (255 / -floor_db) + 0.5), 0, 255).astype(np.uint8)


def _features(clip: np.ndarray, bounds: list[tuple[int, int]], config: SpectrogramConfig) -> np.ndarray:
    """Features [1 + slices, columns] of a clip from its double-precision spectrum."""
    import torch

    from shardwave.preprocess.dsp.statistics import features
    from shardwave.preprocess.engines import torch_features

    measures = torch_features.measure(torch.from_numpy(power(clip, config).T.copy()), config).T
    samples = torch.from_numpy(np.pad(np.asarray(clip, np.float64), (0, max(0, config.n_fft - len(clip)))))
    rates = torch_features.zero_crossing_rate(samples, 1.0, config).to(measures)
    return features(measures, rates, bounds, config).to(torch.float32).numpy()
