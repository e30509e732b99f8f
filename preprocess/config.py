"""Parameters of the spectrogram."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection
from typing import NamedTuple

from shardwave.common.errors import require
from shardwave.preprocess.embeddings import registry

FREQUENCY_SCALES = ("linear", "log", "mel")
FITS = ("stretch", "pad", "crop")


class Limits(NamedTuple):
    """Limits of an audio file; a file that exceeds one is quarantined."""

    seconds: float = 3_600.0  # length of a clip
    missing_seconds: float = 0.1  # length stated by the file that is missing or cannot be decoded


DEFAULTS = Limits()


@dataclasses.dataclass(frozen=True)
class SpectrogramConfig:
    """Parameters of the images and features of a clip.

    A clip has 1 + samples // hop_length STFT frames, as in `librosa.stft(center=True)`.

    Args:
        sample_rate: Sample rate in Hz.
        n_fft: Length of a frame and of its periodic Hann window in samples; a power of two.
        hop_length: Distance between frames in samples.
        frequency_scale: Scale of the frequency axis: `linear`, `log` or `mel`.
        image_size: Height and width of an image in pixels; a multiple of 4.
        floor_db: Level of the pixel value 0, in dB relative to the maximum of the clip.
        slices: Number of equal slices of a clip; 0 for none.
        slice_seconds: Length of a slice in seconds; replaces `slices`.
        slice_overlap: Share of a slice of `slice_seconds` that the next slice repeats, 0 to below 1.
        fit: Treatment of clips that are not `fit_seconds` long: `stretch`, `pad` or `crop` (see `fitted`).
        fit_seconds: Length for fit `pad` and `crop`, in seconds.
        features: Compute feature vectors in addition to the images.
        embeddings: Embeddings to compute, with commas, as names or "name version". The object holds the
            latter, so that the version is part of a set's fingerprint.

    Raises:
        UsageError: A value is not valid.
    """

    sample_rate: int = 22_050
    n_fft: int = 2_048
    hop_length: int = 512
    frequency_scale: str = "linear"
    image_size: int = 512
    floor_db: float = -80.0
    slices: int = 10
    slice_seconds: float | None = None
    slice_overlap: float = 0.0
    fit: str = "stretch"
    fit_seconds: float | None = None
    features: bool = False
    embeddings: str = ""

    def __post_init__(self) -> None:
        entries = registry.versioned(filter(None, map(str.strip, self.embeddings.split(","))))
        object.__setattr__(self, "embeddings", ",".join(entries))
        require(self.sample_rate >= 1_000, "sample_rate must be at least 1000 Hz", self.sample_rate)
        require(
            self.n_fft >= 16 and self.n_fft & (self.n_fft - 1) == 0,
            "n_fft must be a power of two, 16 or more",
            self.n_fft,
        )
        require(
            1 <= self.hop_length <= self.n_fft, "hop_length must lie between 1 and n_fft", self.hop_length
        )
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
        require(-120 <= self.floor_db < 0, "floor_db must lie between -120 and 0 (0 excluded)", self.floor_db)
        require(0 <= self.slices <= 1_000, "slices must lie between 0 and 1000", self.slices)
        narrow = self.sample_rate <= 100 * self.n_fft
        require(
            not self.features or narrow,
            f"features need n_fft of at least a hundredth of sample_rate {self.sample_rate}",
            self.n_fft,
        )
        seconds = self.slice_seconds
        require(seconds is None or 0 < seconds < math.inf, "slice_seconds must be positive", seconds)
        require(
            0 <= self.slice_overlap < 1, "slice_overlap must be at least 0 and below 1", self.slice_overlap
        )
        require(
            not self.slice_overlap or seconds is not None,
            "slice_overlap needs slice_seconds",
            self.slice_overlap,
        )
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
    def embedding_entries(self) -> tuple[str, ...]:
        """Return name and version of each embedding, as "name version"."""
        return tuple(self.embeddings.split(",")) if self.embeddings else ()

    def restricted(self, fields: Collection[str]) -> SpectrogramConfig:
        """Return the parameters with only the features and embeddings among some array fields.

        Args:
            fields: Names of array fields, such as `features.npy`.
        """
        kept = [entry for entry in self.embedding_entries if registry.field(entry.split(" ")[0]) in fields]
        return dataclasses.replace(self, features="features.npy" in fields, embeddings=",".join(kept))

    @property
    def bins(self) -> int:
        """Return the number of frequency bins of the STFT, n_fft / 2 + 1."""
        return self.n_fft // 2 + 1

    def fitted(self, samples: int) -> int:
        """Return the number of samples after fitting a clip.

        `stretch` keeps the length. `pad` appends silence to clips shorter than `fit_seconds`. `crop` does the
        same and cuts longer clips at `fit_seconds`.

        Args:
            samples: Length of the clip at `sample_rate`.
        """
        if self.fit_seconds is None:
            return samples
        length = max(1, round(self.fit_seconds * self.sample_rate))
        return length if self.fit == "crop" else max(samples, length)

    @property
    def sliced(self) -> bool:
        """Return whether clips have slices."""
        return self.slices > 0 or self.slice_seconds is not None

    def frames(self, samples: int) -> int:
        """Return the number of STFT frames of a clip of `samples` samples.

        A clip that is shorter than n_fft after fitting is zero-padded to n_fft.
        """
        return 1 + max(self.fitted(samples), self.n_fft) // self.hop_length

    def slice_bounds(self, samples: int) -> list[tuple[int, int]]:
        """Return the frame ranges of the slices of a clip.

        Slice i of S slices holds the frames from floor(i T / S) to floor((i + 1) T / S) of the T frames of
        the fitted clip, at least one. Slices of `slice_seconds` follow each other with `slice_overlap`. A
        slice that would begin in the silence that `fit` adds is dropped.

        Args:
            samples: Length of the clip at `sample_rate`, before fitting.

        Returns:
            (start, stop) of each slice in frames, stop excluded; an empty list if there are no slices.
        """
        bounds = self.frame_bounds(self.frames(samples))
        if self.fitted(samples) > samples:
            bounds = [(start, stop) for start, stop in bounds if start <= samples // self.hop_length]
        return bounds

    def frame_bounds(self, total: int) -> list[tuple[int, int]]:
        """Return the frame ranges of the slices of a clip that `fit` does not lengthen.

        Args:
            total: Number of frames of the clip.

        Returns:
            As `slice_bounds`.
        """
        if self.slice_seconds is not None:
            length = min(total, max(1, round(self.slice_seconds * self.sample_rate / self.hop_length)))
            step = max(1, round(length * (1 - self.slice_overlap)))
            return [(start, start + length) for start in range(0, total - length + 1, step)]
        starts = [i * total // max(1, self.slices) for i in range(self.slices + 1)]
        return [(start, max(start + 1, stop)) for start, stop in itertools.pairwise(starts)]

    def unused(self, samples: int) -> tuple[int, int]:
        """Return how many samples at the end of a clip are in no view.

        Args:
            samples: Length of the clip at `sample_rate`, before fitting.

        Returns:
            Number of samples that are not in the full view, and number of samples that are in no slice (0 if
            there are no slices).
        """
        fitted, bounds = self.fitted(samples), self.slice_bounds(samples)
        sliced = min(fitted, bounds[-1][1] * self.hop_length) if bounds else samples
        return max(0, samples - fitted), max(0, samples - sliced)
