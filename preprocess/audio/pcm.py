"""Convert uncompressed samples to mono float32.

Samples are read in small pieces, which stay in the CPU cache until they are converted and added to the
checksum.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from typing import Any, NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio

NATIVE = {  # types by (kind, bits, big_endian) of samples that need no conversion
    ("f", 32, sys.byteorder == "big"): np.float32,
    ("i", 16, sys.byteorder == "big"): np.int16,  # only if integers are requested
}
LOUDEST = 1e12  # largest valid float sample


class Samples(NamedTuple):
    """Position and format of the uncompressed samples of a file."""

    offset: int  # bytes
    frames: int
    channels: int
    rate: int  # Hz
    kind: str  # i (signed), u (unsigned) or f (floating point)
    bits: int  # size of a sample in the file: 8, 16, 24, 32 or 64
    big_endian: bool

    @property
    def name(self) -> str:
        """Return the name of the format, for example `16-bit`."""
        return f"{self.bits}-bit{' float' if self.kind == 'f' else ''}"


class SummedFile(FileIO):
    """A file that computes the CRC-32 of the bytes that `readinto` reads.

    It is the CRC-32 of the file if all bytes are read once and in order.
    """

    crc32 = 0

    def sum_up(self, count: int | None = None) -> None:
        """Read bytes only for the checksum.

        Args:
            count: Number of bytes; None: all bytes up to the end of the file.

        Raises:
            OSError: The file cannot be read.
        """
        buffer = memoryview(bytearray(1 << 16))
        while count != 0 and (size := self.readinto(buffer[:count])):
            count = None if count is None else count - size

    def readinto(self, target: Any, /) -> int:
        """Read into `target` (a memoryview) and add the bytes to the checksum; return their number."""
        count = super().readinto(target) or 0
        self.crc32 = zlib.crc32(target[:count], self.crc32)
        return count


def mono_blocks(
    file: FileIO,
    pcm: Samples,
    frames: int,
    size: int,
    integers: bool = False,
    allocate: Callable[[int, Any], np.ndarray] = np.empty,
) -> Iterator[np.ndarray]:
    """Read uncompressed samples and average their channels.

    Args:
        file: The open file.
        pcm: Position and format of the samples.
        frames: Length of a block in frames.
        size: Samples that are read and converted at a time.
        integers: Return 16-bit mono samples in the byte order of this machine as int16, without conversion.
        allocate: Function of a length and a type that returns the array of a block.

    Yields:
        Mono blocks [frames], float32 with a full scale of 1, or int16.

    Raises:
        BadAudio: A float sample is NaN, infinite or too large, or the file has become shorter.
    """
    width, channels = pcm.bits // 8, pcm.channels
    count = max(1, min(size // channels, frames))
    skip = 1 if width == 3 and not pcm.big_endian else 0
    # 24-bit samples are read as 32 bits, up to one byte further
    raw = np.empty(count * channels * width + 1, np.uint8)
    samples = _view(raw, pcm, count)
    whole = np.empty(samples.shape, np.int32) if width == 3 else None
    full_scale = 1 if pcm.kind == "f" else 1 << (31 if width == 3 else pcm.bits - 1)
    scale = np.float32(1 / (channels * full_scale))
    native = NATIVE.get(pcm[4:]) if channels == 1 else None
    native = native if integers or native is np.float32 else None
    file.seek(pcm.offset)
    for start in range(0, pcm.frames, frames):
        mono = allocate(min(frames, pcm.frames - start), native or np.float32)
        for offset in range(0, len(mono), count):
            part = mono[offset : offset + count]
            if native is not None:
                _fill(file, part.data.cast("B"))
                if native is np.float32:
                    check_range(part)
                continue
            _fill(file, raw[skip : skip + len(part) * channels * width].data)
            values = samples[: len(part)]
            if whole is not None:
                values = np.bitwise_and(values, -256, out=whole[: len(part)])
            _average(values, part, scale, np.float32(128 if pcm.kind == "u" else 0))
            if pcm.kind == "f":
                check_range(part)
        yield mono


def check_range(samples: np.ndarray) -> None:
    """Raise BadAudio if a sample is NaN, infinite or larger than LOUDEST."""
    if not max(samples.max(), -samples.min()) <= LOUDEST:
        raise BadAudio("NaN, infinite or absurdly large samples")


def _view(raw: np.ndarray, pcm: Samples, count: int) -> np.ndarray:
    """Return `raw` as samples [count, channels].

    24-bit samples are the upper three bytes of overlapping 32-bit ones.
    """
    width, order = pcm.bits // 8, ">" if pcm.big_endian else "<"
    kind = np.dtype(f"{order}{pcm.kind}{4 if width == 3 else width}")
    return np.ndarray((count, pcm.channels), kind, raw.data, 0, (pcm.channels * width, width))


# a double beyond the range of float32 becomes infinite; `check_range` finds it
@np.errstate(over="ignore", invalid="ignore")
def _average(values: np.ndarray, part: np.ndarray, scale: np.float32, middle: np.float32) -> None:
    part[...] = values[:, 0]
    if middle:
        part -= middle
    if scale != 1:
        part *= scale
    for channel in values.T[1:]:
        added = np.multiply(channel, scale, dtype=np.float32, casting="unsafe")
        part += added - middle * scale if middle else added


def _fill(file: FileIO, target: memoryview) -> None:
    while target:
        count = file.readinto(target)
        if not count:
            raise BadAudio("truncated while it was read")
        target = target[count:]
