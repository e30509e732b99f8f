"""The interface of the engines, and functions that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio
from shardwave.preprocess.config import DEFAULTS, Limits, SpectrogramConfig

if TYPE_CHECKING:
    from shardwave.preprocess.audio.decode import Decoded

NO_CUDA = (
    "device cuda: PyTorch sees no CUDA device here; use --device cpu, or install a driver and a CUDA build "
    "of torch"
)
NO_DALI = (
    "engine dali: NVIDIA DALI is not installed; pip install 'shardwave[dali]', or use --engine numba or torch"
)
# Bounds of the largest sample of a clip. Below QUIETEST, float32 cannot represent powers 80 dB under the
# maximum; above LOUDEST, it cannot represent the maximum power.
QUIETEST, LOUDEST = 1e-9, 1e15


class Segment(NamedTuple):
    """A part of an audio file."""

    path: Path
    start: float | None  # seconds; None: start of the file
    end: float | None  # seconds; None: end of the file


class EngineOutput(NamedTuple):
    """Images and features of a batch of clips.

    Row 0 of the features of a clip describes the full clip, row 1 + i its slice i.
    """

    # uint8 [batch, size, size]: [frequency, time], low frequency first; strips: batch x uint8 [size, frames]
    full: np.ndarray | list[np.ndarray]
    slices: list[np.ndarray]  # batch x uint8 [slices of the clip, size, size]
    features: list[np.ndarray] | None  # batch x float32 [1 + slices of the clip, features]


class ClipOutput(NamedTuple):
    """Images and features of one file or segment, with properties of the file."""

    full: np.ndarray  # uint8 [size, size]; a strip: uint8 [size, frames], in Fortran order
    slices: np.ndarray  # uint8 [slices, size, size]; with a strip: [0, size, size]
    features: np.ndarray | None  # float32 [1 + slices, features]
    samples: int  # at config.sample_rate, before fitting
    source_rate: int  # Hz, of the file
    channels: int  # of the file
    seconds: float  # of the clip
    crc32: int | None  # of the file's bytes, if it was requested and all bytes were read
    remark: str | None  # defect of a file that is used nevertheless


class Engine(ABC):
    """Base class of the engines, which compute images and features of clips.

    Engines never start processes; they may keep buffers between calls.
    """

    name: ClassVar[str]  # one of `shardwave.preprocess.engines.registry.ENGINES`
    device: str  # one of `shardwave.preprocess.engines.registry.DEVICES`
    integers: ClassVar[bool] = False  # accepts int16 clips too, with a full scale of 32,768
    config: SpectrogramConfig
    strips: bool = False  # returns strips in place of images, see `registry.make_strip_engine`

    @abstractmethod
    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Compute the images and features of clips.

        Args:
            clips: Mono samples at `config.sample_rate`, each float32 [time] with finite values.

        Returns:
            Images and features, in the order of `clips`.
        """

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """Decode files or segments of files and compute their images and features.

        Args:
            sources: Files and segments.
            summed: Compute the CRC-32 of each file too, if decoding reads all its bytes.
            limits: Limits beyond which a file is refused.

        Yields:
            (index, output) of each source in order; the output of a file that cannot be used is a `BadAudio`.
        """
        options = {"summed": summed, "integers": self.integers, "limits": limits}
        for number, source in enumerate(sources):
            try:
                clip = decode_source(source, self.config.sample_rate, **options)
            except BadAudio as error:
                yield number, error
                continue
            full, slices, features = self([clip.samples])
            numbers = features[0] if features else None
            yield number, ClipOutput(full[0], slices[0], numbers, len(clip.samples), *clip[1:])


def decode_source(source: Path | Segment, sample_rate: int, **options: Any) -> Decoded:
    """Decode a file or a segment of a file.

    Args:
        source: The file or segment.
        sample_rate: Rate of the result in Hz.
        **options: Further arguments of `shardwave.preprocess.audio.decode.decode`.

    Returns:
        The decoded clip.

    Raises:
        BadAudio: The file cannot be used.
    """
    from shardwave.preprocess.audio.decode import decode

    if isinstance(source, Segment):
        return decode(source.path, sample_rate, start=source.start, end=source.end, **options)
    return decode(source, sample_rate, **options)


def fit_clip(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """Cut or zero-pad a clip [time] to `config.fitted(len(clip))` samples."""
    samples = config.fitted(len(clip))
    return clip[:samples] if samples <= len(clip) else np.pad(clip, (0, samples - len(clip)))


def conditioned(clip: np.ndarray, n_fft: int) -> tuple[np.ndarray, int]:
    """Return contiguous samples whose powers are in the range of float32.

    Very quiet or loud samples are divided by a power of two. Images do not change, because they are relative
    to the maximum of the clip.

    Args:
        clip: Samples [time], floats or int16.
        n_fft: Minimum number of samples; shorter clips are zero-padded.

    Returns:
        The samples divided by 2 ** exponent (float32, or int16 if the clip is int16), and the exponent (0 for
        most floats, -15 for int16).
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
