"""The spectrogram of many clips at once on a GPU: PyTorch's FFT and the `kernels`.

Clips of any lengths lie in one buffer, each already mirrored at its ends and starting at a multiple of the hop: one strided view
of the buffer holds every frame of every clip (and a few that straddle two clips, which nothing looks at), and every step takes
all of them at once. Row f of what follows, `[frame, …]`, is the frame that starts at sample f * hop_length of the buffer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from preprocess import features_torch, kernels
from preprocess.config import SpectrogramConfig
from preprocess.filters import frequency_bands, resize_matrix, sparse
from preprocess.statistics import features

CHUNK = 1 << 16  # frames of 2,048 samples transformed at once: 50 clips of 30 s, 0.7 GB of temporaries on the device
KEPT = 1 << 18  # frames whose logarithms are kept; a batch of more (a clip of 100 minutes) is transformed twice, peaks first
ROUND = 1 << 9  # hops; buffers are multiples of it, since the FFT library makes a new plan for every number of frames


class Place(NamedTuple):
    """Where a clip lies in the buffer."""

    first: int  # frame
    samples: int  # of the clip as it came; frames and slices follow from it
    exponent: int  # the samples were divided by 2 ** exponent


class Layout(NamedTuple):
    """What follows from places but their exponents; on the device."""

    owner: torch.Tensor  # int32 [frames]: number of the clip, -1 for frames that straddle two
    views: torch.Tensor  # of `kernels.view_table`
    long: int  # how many of the views, the first ones, are long


def extent(samples: int, config: SpectrogramConfig) -> int:
    """Hops that a clip of so many samples takes up in the buffer, mirrored ends included."""
    return -(-(max(config.fitted(samples), config.n_fft) + config.n_fft) // config.hop_length)


def buffer_samples(hops: int, config: SpectrogramConfig) -> int:
    """Samples of a buffer for clips of so many hops: a multiple of ROUND hops, with room for the last frame."""
    unit = ROUND * config.hop_length
    return -(-(hops * config.hop_length + config.n_fft) // unit) * unit


def lay(buffer: np.ndarray, samples: np.ndarray, config: SpectrogramConfig) -> None:
    """Write a clip (float32 [n_fft or more]) to the start of `buffer` (float32 [samples]), n_fft / 2 mirrored samples on either
    side.
    """
    half, end = config.n_fft // 2, len(samples) + config.n_fft // 2
    buffer[half:end] = samples
    buffer[:half] = samples[half:0:-1]
    buffer[end : end + half] = samples[-2 : -half - 2 : -1]


class BatchTransform:
    """Images and features of the clips in a buffer on `device`."""

    def __init__(self, config: SpectrogramConfig, device: str | torch.device):
        self.config, self.device = config, torch.device(device)
        bands = frequency_bands(config)
        if bands is None and config.features:
            bands = np.eye(config.bins, dtype=np.float32)
        self._window = torch.hann_window(config.n_fft, dtype=torch.float64, device=device)
        angle = 2 * np.pi * np.arange(config.n_fft // 4) / config.n_fft
        self._turns = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], axis=1), dtype=torch.float32, device=device)
        rows = config.bins if bands is None else len(bands)
        self._bands = None if bands is None else self._along(bands)
        self._resize = kernels.tiles(resize_matrix(rows, config.image_size), self.device)
        self._pitch = -(-max(rows, len(self._resize.weights)) // 16) * 16  # loads of 16 bytes
        self._layout = functools.lru_cache(maxsize=8)(self._laid_out)

    def __call__(self, buffer: torch.Tensor, places: Sequence[Place]) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Buffer [samples] → images uint8 [views, size, size], every clip's whole view and then its slices, and features per
        clip.
        """
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # TF32's ten bits would show in the features
        try:
            with torch.inference_mode():
                return self._compute(buffer, places)
        finally:
            torch.set_float32_matmul_precision(before)

    def _compute(self, buffer: torch.Tensor, places: Sequence[Place]) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        config = self.config
        frames = (len(buffer) - config.n_fft) // config.hop_length
        layout = self._layout(tuple((place.first, place.samples) for place in places), frames)
        peaks = torch.full((len(places),), kernels.SILENT, dtype=torch.int32, device=self.device)
        lines = torch.empty(frames, config.image_size, dtype=torch.float16, device=self.device)
        chunk = max(1, CHUNK * 2_048 // max(config.n_fft, 2_048) // (16 if config.features else 1))
        starts = range(0, frames, chunk)
        measures: list[torch.Tensor] | None = None
        scales = None
        if config.features:
            measures, scales = [], self._moved(np.array([4.0 ** min(place.exponent, 63) for place in places], np.float32))
        kept: list[torch.Tensor | None] = []
        for start in starts:
            logs: torch.Tensor | None = self._logs(buffer, layout.owner[start : start + chunk], start, peaks, measures, scales)
            kept.append(logs if frames <= KEPT else None)
        for number, start in enumerate(starts):
            owner, logs = layout.owner[start : start + chunk], kept[number]
            if logs is None:
                logs = self._logs(buffer, owner, start, peaks, None, scales)
            kernels.level_lines(logs, owner, self._resize, peaks, config.floor_db, lines[start : start + chunk])
        features = None if measures is None else self._features(buffer, torch.cat(measures, dim=1), places)
        return kernels.draw_images(lines, layout.views, layout.long, config.image_size), features

    def _along(self, matrix: np.ndarray) -> kernels.Along:
        return kernels.Along(*(torch.tensor(table, device=self.device) for table in sparse(matrix)))

    def _laid_out(self, places: Sequence[tuple[int, int]], frames: int) -> Layout:
        owner = np.full(frames, -1, np.int32)
        views = []
        for number, (first, samples) in enumerate(places):
            count = self.config.frames(samples)
            owner[first : first + count] = number
            views += [(first + start, stop - start) for start, stop in [(0, count), *self.config.slice_bounds(samples)]]
        table, long = kernels.view_table(views, self.config.image_size)
        return Layout(self._moved(owner), self._moved(table), long)

    def _moved(self, table: np.ndarray) -> torch.Tensor:
        """A small table on the device; through pinned memory, so that nothing waits for the device."""
        host = torch.from_numpy(table)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def _logs(
        self, buffer: torch.Tensor, owner: torch.Tensor, start: int, peaks: torch.Tensor, measures: list[torch.Tensor] | None,
        scales: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        """Logarithms of the frames that `owner` names, from frame `start` on: uint16 [frames, rows and a few]; raises `peaks`,
        appends to `measures`.
        """
        config, frames = self.config, len(owner)
        windows = buffer.unfold(0, config.n_fft, config.hop_length)[start : start + frames]
        logs = torch.empty(frames, self._pitch, dtype=torch.uint16, device=self.device)
        power: torch.Tensor | None = None
        if config.features:  # their smallest values would show the rounding of single precision
            power = torch.fft.rfft(windows * self._window).abs().square_().float()
        else:
            pairs = torch.view_as_complex((windows if config.hop_length % 2 == 0 else windows.contiguous()).unflatten(1, (-1, 2)))
            if self._bands is not None:
                power = torch.empty(frames, config.bins, device=self.device)
            kernels.windowed_power(torch.fft.fft(pairs), self._turns, owner, peaks, logs, power)
        if self._bands is not None and power is not None:
            kernels.bands(power, owner, self._bands, peaks, logs)
        if measures is not None and power is not None and scales is not None:  # of the clip as it came
            measures.append(features_torch.measure((power.T * scales[owner.clamp_min(0)])[None], config)[0])
        return logs

    def _features(self, buffer: torch.Tensor, measures: torch.Tensor, places: Sequence[Place]) -> list[torch.Tensor]:
        """Clips of one length together: per clip [1 + slices, columns]."""
        config = self.config
        alike: dict[int, list[int]] = {}
        for number, place in enumerate(places):
            alike.setdefault(place.samples, []).append(number)
        made: dict[int, torch.Tensor] = {}
        for samples, numbers in alike.items():
            frames, length = config.frames(samples), max(config.fitted(samples), config.n_fft)
            chosen = [places[number] for number in numbers]
            starts = [place.first * config.hop_length + config.n_fft // 2 for place in chosen]
            scale = self._moved(np.array([2.0**place.exponent for place in chosen], np.float32))[:, None]
            rates = features_torch.zero_crossing_rate(
                torch.stack([buffer[start : start + length] for start in starts]) * scale, config
            )
            own = torch.stack([measures[:, place.first : place.first + frames] for place in chosen])
            made.update(zip(numbers, features(own, rates, config.slice_bounds(samples), config), strict=True))
        return [made[number] for number in range(len(places))]
