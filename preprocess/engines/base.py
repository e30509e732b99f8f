"""The engine interface: clips in, images (and features) out; what engines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio
from shardwave.preprocess.config import DEFAULTS, Limits, SpectrogramConfig

if TYPE_CHECKING:
    from shardwave.preprocess.audio.decode import Decoded

NO_CUDA = "device cuda: PyTorch sees no CUDA device here; use --device cpu, or install a driver and a CUDA build of torch"
NO_DALI = "engine dali: NVIDIA DALI is not installed; pip install 'shardwave[dali]', or use --engine numba or torch"
# Largest sample of a clip; beyond these float32 has no room for powers 80 dB under, or at, the maximum.
QUIETEST, LOUDEST = 1e-9, 1e15


class Segment(NamedTuple):
    """A part of an audio file."""

    path: Path
    start: float | None  # seconds; None: the file's beginning
    end: float | None  # seconds; None: the file's end


class EngineOutput(NamedTuple):
    """What an engine makes of a batch of clips; row 0 of a clip's features is the whole clip, row 1 + i its slice i."""

    full: np.ndarray  # uint8 [batch, size, size]: [frequency, time], low frequency first
    slices: list[np.ndarray]  # batch x uint8 [slices of the clip, size, size]
    features: list[np.ndarray] | None  # batch x float32 [1 + slices of the clip, features]


class ClipOutput(NamedTuple):
    """What `Engine.stream` makes of one file."""

    full: np.ndarray  # uint8 [size, size]
    slices: np.ndarray  # uint8 [slices, size, size]
    features: np.ndarray | None  # float32 [1 + slices, features]
    samples: int  # at config.sample_rate, before fitting
    source_rate: int  # Hz, of the file
    channels: int  # of the file
    seconds: float  # of the file
    crc32: int | None  # of the file's bytes, where that was asked for and came with reading them
    remark: str | None  # what was wrong with a file that is used all the same


class Engine(ABC):
    """Computes images and features. Engines never start processes; they may keep buffers between calls."""

    name: ClassVar[str]  # one of `shardwave.preprocess.engines.registry.ENGINES`
    device: str  # one of `shardwave.preprocess.engines.registry.DEVICES`
    integers: ClassVar[bool] = False  # clips may be int16 too, whose full scale is 32,768
    together: ClassVar[int] = 1  # clips that `stream` hands over in one call
    config: SpectrogramConfig

    @abstractmethod
    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Images and features of `clips` (each float32 [time], mono at config.sample_rate, finite)."""

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """Decode and transform files, or segments of files, in their order.

        Args:
            sources: The files and segments.
            summed: Return the files' CRC-32 too, where that needs no second reading.
            limits: What of a file is accepted.

        Yields:
            The number of the source and its output; for a file that cannot be used, its `BadAudio`.
        """
        options = {"summed": summed, "integers": self.integers, "limits": limits}
        rest = enumerate(sources)
        while group := list(islice(rest, self.together)):
            clips: dict[int, Decoded | BadAudio] = {}
            for number, source in group:
                try:
                    clips[number] = decode_source(source, self.config.sample_rate, **options)
                except BadAudio as error:
                    clips[number] = error
            full, slices, features = self([clip.samples for clip in clips.values() if not isinstance(clip, BadAudio)])
            outputs = iter(zip(full, slices, features or repeat(None), strict=False))
            for number, clip in clips.items():
                if isinstance(clip, BadAudio):
                    yield number, clip
                    continue
                image, parts, numbers = next(outputs)
                yield number, ClipOutput(image, parts, numbers, len(clip.samples), *clip[1:])


def decode_source(source: Path | Segment, sample_rate: int, **options: Any) -> Decoded:
    """Decode a file or a segment of one (see `shardwave.preprocess.audio.decode.decode`)."""
    from shardwave.preprocess.audio.decode import decode

    if isinstance(source, Segment):
        return decode(source.path, sample_rate, start=source.start, end=source.end, **options)
    return decode(source, sample_rate, **options)


def fit_clip(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """The clip [time] as `config.fit` has it: followed by zeros or cut off at `config.fitted(len(clip))` samples."""
    samples = config.fitted(len(clip))
    return clip[:samples] if samples <= len(clip) else np.pad(clip, (0, samples - len(clip)))


def conditioned(clip: np.ndarray, n_fft: int) -> tuple[np.ndarray, int]:
    """The clip as contiguous samples, n_fft or more, divided by 2 ** exponent where the powers of floats would leave a float's
    range.

    Images are relative to the clip's maximum, so that the division leaves no trace in them; returned are samples (float32, or
    int16 as they came) and exponent (-15 for int16, mostly 0 for floats).
    """
    samples = np.ascontiguousarray(clip, None if clip.dtype == np.int16 else np.float32)
    if len(samples) < n_fft:
        samples = np.pad(samples, (0, n_fft - len(samples)))
    if samples.dtype == np.int16:
        return samples, -15
    largest = float(max(samples.max(), -samples.min()))
    if largest == 0 or QUIETEST < largest < LOUDEST:
        return samples, 0
    exponent = int(np.frexp(largest)[1])
    return np.ldexp(samples, -exponent), exponent
