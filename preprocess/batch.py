"""The spectrogram of many clips at once in plain torch operations, on any device; the CUDA engine's arithmetic.

Clips of any lengths lie in one buffer, each already mirrored at its ends and starting at a multiple of the hop: one strided view
of the buffer holds every frame of every clip (and a few that straddle two clips, which nothing looks at), one transform and one
product of matrices serve all of them. Row f of what follows, `[frame, …]`, is the frame that starts at sample f * hop_length of
the buffer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from preprocess import features_torch
from preprocess.config import SpectrogramConfig
from preprocess.filters import frequency_bands, resize_matrix, resize_taps

CHUNK = 1 << 15  # frames transformed at once: 25 clips of 30 s, 1.6 GB of temporaries on the device
KEPT = 1 << 18  # frames whose power is kept; a batch of more (a clip of 100 minutes) is transformed twice, the maximum first


class Place(NamedTuple):
    """Where a clip lies in the buffer."""

    first: int  # frame
    samples: int  # of the clip as it came; frames and slices follow from it
    exponent: int  # the samples were divided by 2 ** exponent


def mirrored(samples: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """A clip of n_fft samples or more with n_fft / 2 mirrored ones on either side, zeros after it up to a multiple of the hop."""
    padded = np.pad(samples, config.n_fft // 2, mode="reflect")
    return np.pad(padded, (0, -len(padded) % config.hop_length))


class BatchTransform:
    """Images and features of the clips in a buffer on `device`."""

    def __init__(self, config: SpectrogramConfig, device: str | torch.device):
        self.config, self.device = config, torch.device(device)
        self._window = torch.hann_window(config.n_fft, periodic=True, device=device)
        bands = frequency_bands(config)
        self._bands = None if bands is None else torch.tensor(bands.T, device=device)
        rows = config.bins if bands is None else config.image_size
        self._along = torch.tensor(resize_matrix(rows, config.image_size).T, device=device)
        self._taps = functools.lru_cache(maxsize=64)(self._device_taps)

    def __call__(self, buffer: torch.Tensor, places: Sequence[Place]) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Buffer [samples] → images uint8 [views, size, size], every clip's whole view and then its slices, and features per
        clip.
        """
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # TF32's ten bits would be a tenth of a level off
        try:
            with torch.inference_mode():
                return self._compute(buffer, places)
        finally:
            torch.set_float32_matmul_precision(before)

    def _compute(self, buffer: torch.Tensor, places: Sequence[Place]) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        frames = (len(buffer) - self.config.n_fft) // self.config.hop_length + 1
        owner = self._owner(frames, places)
        peaks = torch.zeros(len(places) + 1, device=self.device)
        scales = self._moved(np.array([*(4.0 ** min(place.exponent, 63) for place in places), 0], np.float32))
        measures, kept = [], []
        for start in range(0, frames, CHUNK):
            power = self._power(buffer, start, min(frames, start + CHUNK))
            if self.config.features:  # of the clip as it came
                scale = scales[owner[start : start + CHUNK]]
                measures.append(features_torch.measure((power * scale[:, None]).T[None], self.config)[0])
            banded = power if self._bands is None else power @ self._bands
            peaks.scatter_reduce_(0, owner[start : start + CHUNK], banded.amax(dim=1), "amax")
            if frames <= KEPT:
                kept.append(banded)
        lines = torch.empty(frames, self.config.image_size, device=self.device)
        for number, start in enumerate(range(0, frames, CHUNK)):
            if kept:
                banded, kept[number] = kept[number], torch.empty(0)
            else:
                power = self._power(buffer, start, min(frames, start + CHUNK))
                banded = power if self._bands is None else power @ self._bands
            torch.mm(self._levels(banded, peaks[owner[start : start + CHUNK]]), self._along, out=lines[start : start + CHUNK])
        features = self._features(buffer, torch.cat(measures, dim=1), places) if self.config.features else None
        return self._images(lines, places), features

    def _owner(self, frames: int, places: Sequence[Place]) -> torch.Tensor:
        """Number of the clip that a frame belongs to; one past the last for frames that straddle two."""
        owner = np.full(frames, len(places))
        for number, place in enumerate(places):
            owner[place.first : place.first + self.config.frames(place.samples)] = number
        return self._moved(owner)

    def _moved(self, table: np.ndarray) -> torch.Tensor:
        """A small table on the device; through pinned memory, so that nothing waits for the device."""
        host = torch.from_numpy(table)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def _power(self, buffer: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Power spectra of the frames [start, stop): [frames, bins]."""
        frames = buffer.unfold(0, self.config.n_fft, self.config.hop_length)[start:stop]
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self._window))
        return spectrum.square_().sum(dim=-1)

    def _levels(self, power: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """In place: dB relative to each row's peak as levels, 0 at the floor and 255 at the peak; all 0 where the peak is 0."""
        factor = 10 * float(np.log10(2)) * 255 / -self.config.floor_db
        silent = peak == 0
        power.log2_().sub_(torch.where(silent, 0.0, peak.log2())[:, None]).mul_(factor).add_(255)
        return power.clamp_min_(0).masked_fill_(silent[:, None], 0)

    def _device_taps(self, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        taps = resize_taps(frames, self.config.image_size)
        columns = taps.first[:, None] + np.arange(taps.weights.shape[1])
        return self._moved(columns), self._moved(np.array(taps.weights))

    def _images(self, lines: torch.Tensor, places: Sequence[Place]) -> torch.Tensor:
        """Lines [frame, pixel] resized along time, view by view, rounded half up."""
        size = self.config.image_size
        lengths: dict[int, list[tuple[int, int]]] = {}  # frames of a view → (number of the view, first frame)
        count = 0
        for place in places:
            for start, stop in [(0, self.config.frames(place.samples)), *self.config.slice_bounds(place.samples)]:
                lengths.setdefault(stop - start, []).append((count, place.first + start))
                count += 1
        images = torch.empty(count, size, size, dtype=torch.uint8, device=self.device)
        for frames, views in lengths.items():
            columns, weights = self._taps(frames)
            numbers, first = self._moved(np.array(views).T.copy())
            rows = (first[:, None, None] + columns).flatten(0, 1)
            sums = torch.nn.functional.embedding_bag(rows, lines, per_sample_weights=weights.repeat(len(views), 1), mode="sum")
            images[numbers] = sums.add_(0.5).to(torch.uint8).view(-1, size, size).transpose(1, 2)
        return images

    def _features(self, buffer: torch.Tensor, measures: torch.Tensor, places: Sequence[Place]) -> list[torch.Tensor]:
        """Clips of one length together: per clip [1 + slices, columns]."""
        config = self.config
        alike: dict[int, list[int]] = {}
        for number, place in enumerate(places):
            alike.setdefault(place.samples, []).append(number)
        made: dict[int, torch.Tensor] = {}
        for samples, numbers in alike.items():
            frames, length = config.frames(samples), max(samples, config.n_fft)
            chosen = [places[number] for number in numbers]
            starts = [place.first * config.hop_length + config.n_fft // 2 for place in chosen]
            scale = self._moved(np.array([2.0**place.exponent for place in chosen], np.float32))[:, None]
            rates = features_torch.zero_crossing_rate(
                torch.stack([buffer[start : start + length] for start in starts]) * scale, config
            )
            own = torch.stack([measures[:, place.first : place.first + frames] for place in chosen])
            made.update(zip(numbers, features_torch.features(own, rates, config.slice_bounds(samples), config), strict=True))
        return [made[number] for number in range(len(places))]
