"""A network from waveforms to class probabilities, with the spectrogram in the graph.

It consists of operations that `torch.export` and ONNX support, and accepts waveforms of any length. The
definition is that of the engines (`shardwave.preprocess.engines.reference`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.audio_classifier import spectrogram_config
from shardwave.models.evaluation.fourier import PowerSpectrum
from shardwave.models.evaluation.reliability import LEAST
from shardwave.models.runs.checkpoint import Trained
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.filters import frequency_bands
from shardwave.preprocess.engines.base import LOUDEST, QUIETEST
from shardwave.shards.read.shardset import JOIN

SILENT = 1e-37  # power below which a clip is silent


class WaveformClassifier(nn.Module):
    """Map a waveform to class probabilities, from the view whose score selected the epoch.

    Maps float32 [samples] at the rate of the spectrogram to float32 [classes].

    Args:
        trained: The trained network.
        temperature: Temperature of the probabilities, see `calibration`.

    Raises:
        UsageError: The run cannot classify audio, or its network takes features.
    """

    window: Tensor
    bands: Tensor | None

    def __init__(self, trained: Trained, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        if trained.spectrogram is not None and "features.npy" in trained.field.split(JOIN):
            raise UsageError(
                f"model {trained.config.model} takes features, which an exported graph cannot "
                "reproduce: the contrast of bands without power consists of rounding errors of the engine, "
                "which change the probabilities by up to 0.005: "
                "export a run of cnn, cnn-plus, transfer, or mlp on an embedding, or use shardwave.predict"
            )
        self.config = config = spectrogram_config(trained)
        self.width = trained.config.image_size  # None: as high, and not cut from a strip
        self.is_sliced = SCORE_VIEWS[trained.selected] == "slice"
        self.network = trained.network.float().eval()
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
        self.register_buffer("window", torch.tensor(window, dtype=torch.float32))
        self.spectrum = PowerSpectrum(config.n_fft)
        bands = frequency_bands(config)
        self.register_buffer("bands", None if bands is None else torch.tensor(bands.T))

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveform in Hz."""
        return self.config.sample_rate

    def forward(self, waveform: Tensor) -> Tensor:
        """Map a waveform, float32 [samples], to class probabilities, float32 [classes]."""
        inputs, used = self._images(waveform)
        probabilities: Tensor = self.network(inputs).float().softmax(1)
        return mean_of_views(probabilities, used, self.temperature)

    def _fitted(self, waveform: Tensor) -> Tensor:
        """Return samples cut or padded as configured and scaled into the range of float32."""
        samples, length = waveform, self.config.n_fft
        if self.config.fit_seconds is not None:
            fitted = max(1, round(self.config.fit_seconds * self.config.sample_rate))
            length = max(length, fitted)
            if self.config.fit == "crop":
                samples = torch.nn.functional.pad(samples, (0, fitted))[:fitted]
        missing = torch.sym_max(length - samples.shape[0], 0)  # type: ignore[no-untyped-call]
        samples = torch.nn.functional.pad(samples, (0, missing))
        largest = samples.abs().max()
        is_usual = ((largest > QUIETEST) & (largest < LOUDEST)) | (largest == 0)
        return samples / torch.where(is_usual, torch.ones_like(largest), largest)

    def _power(self, samples: Tensor) -> Tensor:
        """Compute the power spectrogram [frames, bins]."""
        config, half = self.config, self.config.n_fft // 2
        padded = torch.nn.functional.pad(samples[None, None], (half, half), mode="reflect")[0, 0]
        frames = 1 + samples.shape[0] // config.hop_length
        # frames are gathered as rows of samples, since runtimes gather single samples slowly
        length = math.gcd(config.hop_length, config.n_fft)
        rows = padded[: (frames - 1) * config.hop_length + config.n_fft].reshape(-1, length)
        first = torch.arange(frames)[:, None] * (config.hop_length // length)
        places = (first + torch.arange(config.n_fft // length)).reshape(-1)
        power: Tensor = self.spectrum(rows.index_select(0, places).reshape(-1, config.n_fft) * self.window)
        return power

    def _images(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the levels of the views [views, size, width], and which of them are used [views]."""
        config = self.config
        power = self._power(self._fitted(waveform))
        if self.bands is not None:
            power = power @ self.bands
        decibels = 10 * torch.log10(power.clamp_min(SILENT))
        peak = decibels.max()
        is_silent = power.max() <= SILENT
        level = torch.maximum(decibels - peak, torch.full((), config.floor_db))
        level = torch.where(is_silent, torch.full((), config.floor_db), level)
        rows = torch.full((1,), level.shape[1])
        along = _resize(torch.zeros_like(rows), rows, level.shape[1], config.image_size)
        lines = (level[:, along[0][0]] @ along[1][0].T - config.floor_db) * (255 / -config.floor_db) + 0.5
        if self.width is not None:
            lines = lines.floor() + 0.5  # a strip is rounded before it is resized along time
        start, stop, used, longest = view_bounds(config, self.is_sliced, waveform.shape[0], power.shape[0])
        places, weights = _resize(start, stop, longest, self.width or config.image_size)
        return (weights @ lines[places]).mT.floor().clamp(0, 255), used


def mean_of_views(probabilities: Tensor, used: Tensor, temperature: float) -> Tensor:
    """Average the probabilities of views and apply the temperature of a calibrated run.

    Args:
        probabilities: Probabilities, float32 [views, classes].
        used: 1 for the views that count, else 0, float32 [views].
        temperature: Temperature, see `calibration`.

    Returns:
        float32 [classes].
    """
    mean = (probabilities * used[:, None]).sum(0) / used.sum()
    if temperature == 1:
        return mean
    return (mean.clamp_min(LEAST).log() / temperature).softmax(0)


def view_bounds(
    config: SpectrogramConfig, is_sliced: bool, samples: int, frames: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return the views of a clip: its slices as `SpectrogramConfig.slice_bounds` cuts them, or all of it.

    Args:
        config: Parameters of the spectrogram.
        is_sliced: Whether the views are slices.
        samples: Length of the clip at `config.sample_rate`, before fitting.
        frames: Number of frames after fitting.

    Returns:
        First frame and last frame + 1 of each view, int64 [views], 1 for views that are used and 0 for
        others, float32 [views], and an upper bound of the number of frames of a view.
    """
    if not is_sliced:
        return torch.zeros(1, dtype=torch.int64), torch.full((1,), frames), torch.ones(1), frames
    if config.slice_seconds is None:
        numbers = torch.arange(config.slices + 1) * frames // config.slices
        start = numbers[:-1]
        stop, longest = torch.maximum(numbers[1:], start + 1), frames // config.slices + 1
    else:
        longest = max(1, round(config.slice_seconds * config.sample_rate / config.hop_length))
        step = max(1, round(longest * (1 - config.slice_overlap)))
        longest = torch.sym_min(longest, frames)  # type: ignore[no-untyped-call]
        start = torch.arange(0, frames - longest + 1, step)
        stop = start + longest
    used = torch.ones_like(start, dtype=torch.float32)
    if config.fit_seconds is not None:  # slices that begin in added silence are not used
        used = (start <= samples // config.hop_length).float()
        used = torch.maximum(used, (start == 0).float())
    return start, stop, used, longest


def _resize(start: Tensor, stop: Tensor, longest: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the weights of `shardwave.preprocess.dsp.filters.resize` for several intervals of one axis.

    Args:
        start: First index of each interval, int64 [intervals].
        stop: Last index + 1, int64 [intervals].
        longest: Upper bound of the lengths of the intervals.
        size: Number of pixels of each result.

    Returns:
        Indices [intervals, taps] on the axis, and their weights, float32 [intervals, size, taps].
    """
    beyond = longest // size + 2  # places on each side of an interval, which repeat its edge
    columns = torch.arange(-beyond, longest + beyond)
    scale = ((stop - start).double() / size)[:, None, None]
    centre = (torch.arange(size).double()[:, None] + 0.5) * scale - 0.5
    weights = (1 - (columns.double() - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights / weights.sum(2, keepdim=True)
    places = torch.minimum(torch.maximum(start[:, None], start[:, None] + columns), stop[:, None] - 1)
    return places, weights.float()
