"""The reference engine, in NumPy and double precision, which defines the images of all engines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.filters import frequency_bands, resize_matrix
from shardwave.preprocess.engines.base import Engine, EngineOutput, fit_clip


class ReferenceEngine(Engine):
    """Compute images and features clip by clip with plain NumPy.

    Args:
        config: Parameters of the images and features.
    """

    name = "reference"
    device = "cpu"

    def __init__(self, config: SpectrogramConfig) -> None:
        self.config = config

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Compute the images and features of clips, see `Engine.__call__`."""
        size, floor = self.config.image_size, self.config.floor_db
        full, slices, features = [], [], []
        for clip in clips:
            bounds = self.config.slice_bounds(len(clip))
            clip = fit_clip(clip, self.config)
            lines = along_frequency(decibels(clip, self.config), size)
            full.append(quantised(lines, floor).copy("F") if self.strips else image(lines, floor))
            views = [image(lines[:, start:stop], floor) for start, stop in bounds if not self.strips]
            slices.append(np.array(views, np.uint8).reshape(-1, size, size))
            if self.config.features:
                features.append(_features(clip, bounds, self.config))
        images = full if self.strips else np.array(full, np.uint8).reshape(-1, size, size)
        return EngineOutput(images, slices, features if self.config.features else None)


def power(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """Compute the power spectrogram |STFT|², with a periodic Hann window, centred frames and reflect padding.

    Args:
        clip: Samples [time]; fewer than n_fft are zero-padded to n_fft.
        config: Transform size and hop.

    Returns:
        float64 [bins, frames].
    """
    samples = np.asarray(clip, np.float64)
    samples = np.pad(samples, (0, max(0, config.n_fft - len(samples))))
    samples = np.pad(samples, config.n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)[:: config.hop_length]
    columns = [np.abs(np.fft.rfft(frame * window)) ** 2 for frame in frames]
    return np.stack(columns, axis=1)


def decibels(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """Compute decibels relative to the maximum of the clip, clipped at `config.floor_db`.

    Args:
        clip: Samples [time].
        config: Parameters of the spectrogram.

    Returns:
        float64 [frequency, frames]; floor_db everywhere if the clip is silent.
    """
    bands = frequency_bands(config)
    spectrum = power(clip, config)
    if bands is not None:
        spectrum = bands.astype(np.float64) @ spectrum
    peak = spectrum.max()
    if peak == 0:
        return np.full_like(spectrum, config.floor_db)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(10 * np.log10(spectrum / peak), config.floor_db))


def along_frequency(level: np.ndarray, size: int) -> np.ndarray:
    """Resize decibels [frequency, frames] along frequency to [size, frames]."""
    return np.asarray(resize_matrix(level.shape[0], size).astype(np.float64) @ level)


def image(lines: np.ndarray, floor_db: float) -> np.ndarray:
    """Resize decibels along time and quantise them.

    Args:
        lines: Decibels [size, frames].
        floor_db: Level of the pixel value 0 in dB; the pixel value 255 is 0 dB.

    Returns:
        uint8 [size, size], rounded half up.
    """
    return quantised(lines @ resize_matrix(lines.shape[1], len(lines)).astype(np.float64).T, floor_db)


def quantised(level: np.ndarray, floor_db: float) -> np.ndarray:
    """Convert decibels to pixel values from 0 at `floor_db` to 255 at 0 dB, rounded half up."""
    levels = np.floor((level - floor_db) * (255 / -floor_db) + 0.5)
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def _features(clip: np.ndarray, bounds: list[tuple[int, int]], config: SpectrogramConfig) -> np.ndarray:
    """Compute the features [1 + slices, columns] of a clip from its double-precision spectrum."""
    import torch

    from shardwave.preprocess.dsp.statistics import features
    from shardwave.preprocess.engines import torch_features

    measures = torch_features.measure(torch.from_numpy(power(clip, config).T.copy()), config).T
    samples = torch.from_numpy(np.pad(np.asarray(clip, np.float64), (0, max(0, config.n_fft - len(clip)))))
    rates = torch_features.zero_crossing_rate(samples, 1.0, config).to(measures)
    return np.asarray(features(measures, rates, bounds, config).to(torch.float32))
