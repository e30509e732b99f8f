"""The spectrogram's parameters, with their units; checked when built."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

from shardwave.common.errors import require

FREQUENCY_SCALES = ("linear", "log", "mel")
FITS = ("stretch", "pad", "crop")


class Limits(NamedTuple):
    """What of an audio file is accepted; a file beyond it is quarantined."""

    seconds: float = 3_600.0  # longest clip
    missing_seconds: float = 0.1  # most that may be missing of what the file states that it holds


DEFAULTS = Limits()


@dataclasses.dataclass(frozen=True)
class SpectrogramConfig:
    """What turns a clip into images and features; every engine takes it, every shard set stores it.

    Frames are counted as in `librosa.stft(center=True)`: 1 + samples // hop_length.
    """

    sample_rate: int = 22_050  # Hz
    n_fft: int = 2_048  # samples; also the window's length (periodic Hann)
    hop_length: int = 512  # samples
    frequency_scale: str = "linear"  # one of FREQUENCY_SCALES
    image_size: int = 512  # pixels, both axes
    floor_db: float = -80.0  # dB relative to the clip's maximum; level 0
    slices: int = 10  # equal parts of a clip; 0 = none
    slice_seconds: float | None = None  # seconds; replaces `slices` when given
    slice_overlap: float = 0.0  # share of slice_seconds that a slice has in common with the next, 0 to below 1
    fit: str = "stretch"  # one of FITS: what happens to clips that are not fit_seconds long, see `fitted`
    fit_seconds: float | None = None  # seconds; with fit pad and crop
    features: bool = False  # tabular features beside the images

    def __post_init__(self) -> None:
        require(self.sample_rate >= 1_000, "sample_rate must be at least 1000 Hz", self.sample_rate)
        require(self.n_fft >= 16 and self.n_fft & (self.n_fft - 1) == 0, "n_fft must be a power of two, 16 or more", self.n_fft)
        require(1 <= self.hop_length <= self.n_fft, "hop_length must lie between 1 and n_fft", self.hop_length)
        require(
            self.frequency_scale in FREQUENCY_SCALES,
            f"frequency_scale must be one of {', '.join(FREQUENCY_SCALES)}",
            self.frequency_scale,
        )
        require(
            8 <= self.image_size <= 4_096 and self.image_size % 4 == 0,
            "image_size must be a multiple of 4 between 8 and 4096",
            self.image_size,
        )
        require(-120 <= self.floor_db < 0, "floor_db must lie between -120 (single precision ends there) and 0", self.floor_db)
        require(0 <= self.slices <= 1_000, "slices must lie between 0 and 1000", self.slices)
        narrow = self.sample_rate <= 100 * self.n_fft
        require(
            not self.features or narrow,
            f"features need n_fft of at least a hundredth of sample_rate {self.sample_rate}",
            self.n_fft,
        )
        seconds = self.slice_seconds
        require(seconds is None or 0 < seconds < math.inf, "slice_seconds must be positive", seconds)
        require(0 <= self.slice_overlap < 1, "slice_overlap must be at least 0 and below 1", self.slice_overlap)
        require(not self.slice_overlap or seconds is not None, "slice_overlap needs slice_seconds", self.slice_overlap)
        require(self.fit in FITS, f"fit must be one of {', '.join(FITS)}", self.fit)
        length = self.fit_seconds
        if self.fit == "stretch":
            require(length is None, "fit_seconds needs fit pad or crop", length)
        else:
            require(
                length is not None and 0 < length <= 3_600,
                f"fit_seconds must be positive and at most 3600 with fit {self.fit}",
                length,
            )

    @property
    def bins(self) -> int:
        """Frequency bins of the STFT: n_fft / 2 + 1."""
        return self.n_fft // 2 + 1

    def fitted(self, samples: int) -> int:
        """Samples that are transformed of a clip of `samples`.

        `stretch`: all of it. `pad`: a clip shorter than fit_seconds is followed by silence. `crop`: likewise, and of a longer
        clip the first fit_seconds are taken. Fitting what was fitted changes nothing.
        """
        if self.fit_seconds is None:
            return samples
        length = max(1, round(self.fit_seconds * self.sample_rate))
        return length if self.fit == "crop" else max(samples, length)

    def frames(self, samples: int) -> int:
        """STFT frames of a clip of `samples` (what is under n_fft after fitting is zero-padded to it)."""
        return 1 + max(self.fitted(samples), self.n_fft) // self.hop_length

    def slice_bounds(self, samples: int) -> list[tuple[int, int]]:
        """Frame ranges [start, stop) of the slices of a clip of `samples`, within the fitted clip (DESIGN §3, Slices).

        Empty when slices are off. A slice that would begin in the silence that `fit` added is left out.
        """
        total = self.frames(samples)
        if self.slice_seconds is not None:
            length = min(total, max(1, round(self.slice_seconds * self.sample_rate / self.hop_length)))
            step = max(1, round(length * (1 - self.slice_overlap)))
            bounds = [(start, start + length) for start in range(0, total - length + 1, step)]
        else:
            starts = [i * total // max(1, self.slices) for i in range(self.slices + 1)]
            bounds = [(start, max(start + 1, stop)) for start, stop in itertools.pairwise(starts)]
        if self.fitted(samples) > samples:
            bounds = [(start, stop) for start, stop in bounds if start <= samples // self.hop_length]
        return bounds

    def unused(self, samples: int) -> tuple[int, int]:
        """Samples at the end of a clip that are in no `full` view, and in none of its slices (0 where there are no slices)."""
        fitted, bounds = self.fitted(samples), self.slice_bounds(samples)
        sliced = min(fitted, bounds[-1][1] * self.hop_length) if bounds else samples
        return max(0, samples - fitted), max(0, samples - sliced)
