"""The spectrogram's parameters, with their units; checked when built."""

from __future__ import annotations

import dataclasses

from preprocess.errors import UsageError

FREQUENCY_SCALES = ("linear", "log", "mel")


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
    features: bool = False  # tabular features beside the images

    def __post_init__(self) -> None:
        _check(self.sample_rate >= 1_000, "sample_rate must be at least 1000 Hz", self.sample_rate)
        _check(self.n_fft >= 16 and self.n_fft & (self.n_fft - 1) == 0, "n_fft must be a power of two, 16 or more", self.n_fft)
        _check(1 <= self.hop_length <= self.n_fft, "hop_length must lie between 1 and n_fft", self.hop_length)
        _check(
            self.frequency_scale in FREQUENCY_SCALES,
            f"frequency_scale must be one of {', '.join(FREQUENCY_SCALES)}",
            self.frequency_scale,
        )
        _check(
            8 <= self.image_size <= 4_096 and self.image_size % 4 == 0,
            "image_size must be a multiple of 4 between 8 and 4096",
            self.image_size,
        )
        _check(-120 <= self.floor_db < 0, "floor_db must lie between -120 (single precision ends there) and 0", self.floor_db)
        _check(0 <= self.slices <= 1_000, "slices must lie between 0 and 1000", self.slices)
        narrow = self.sample_rate <= 100 * self.n_fft
        _check(
            not self.features or narrow,
            f"features need n_fft of at least a hundredth of sample_rate {self.sample_rate}",
            self.n_fft,
        )
        _check(self.slice_seconds is None or self.slice_seconds > 0, "slice_seconds must be positive", self.slice_seconds)

    @property
    def bins(self) -> int:
        """Frequency bins of the STFT: n_fft / 2 + 1."""
        return self.n_fft // 2 + 1

    def frames(self, samples: int) -> int:
        """STFT frames of a clip of `samples` (clips under n_fft are zero-padded to it first)."""
        return 1 + max(samples, self.n_fft) // self.hop_length

    def slice_bounds(self, samples: int) -> list[tuple[int, int]]:
        """Frame ranges [start, stop) of the clip's slices; empty when slices are off (DESIGN §2, time slices)."""
        total = self.frames(samples)
        if self.slice_seconds is not None:
            length = max(1, round(self.slice_seconds * self.sample_rate / self.hop_length))
            if length >= total:
                return [(0, total)]
            return [(i * length, (i + 1) * length) for i in range(total // length)]
        bounds = []
        for i in range(self.slices):
            start, stop = i * total // self.slices, (i + 1) * total // self.slices
            bounds.append((start, stop) if stop > start else (min(start, total - 1), min(start, total - 1) + 1))
        return bounds


def _check(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise UsageError(f"{rule}, got {got}")
