"""Uncompressed samples to mono float32, piece by piece as they are read: a piece stays in cache until it is converted (and
summed up, where a checksum is wanted).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from io import FileIO
from typing import Any, NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio

NATIVE = {  # ends of the `Samples` that need no conversion
    ("f", 32, sys.byteorder == "big"): np.float32,
    ("i", 16, sys.byteorder == "big"): np.int16,  # where integers are wanted
}
LOUDEST = 1e12  # beyond this a float sample is no sound


class Samples(NamedTuple):
    """Where a file's uncompressed samples lie, and what they are."""

    offset: int  # bytes
    frames: int
    channels: int
    rate: int  # Hz
    kind: str  # i (signed), u (unsigned) or f (floating point)
    bits: int  # 8, 16, 24, 32 or 64, as many as they take up
    big_endian: bool

    @property
    def name(self) -> str:
        """What they are, for people."""
        return f"{self.bits}-bit{' float' if self.kind == 'f' else ''}"


class SummedFile(FileIO):
    """A file and the CRC-32 of what was read into buffers, which is the file's where that was all of it, in its order."""

    crc32 = 0

    def sum_up(self, count: int | None = None) -> None:
        """Read `count` bytes, or to the end, for the checksum alone; raises OSError where that fails."""
        buffer = memoryview(bytearray(1 << 16))
        while count != 0 and (got := self.readinto(buffer[:count])):
            count = None if count is None else count - got

    def readinto(self, target: Any, /) -> int:
        """Read into `target` (a memoryview) and sum up what came."""
        count = super().readinto(target) or 0
        self.crc32 = zlib.crc32(target[:count], self.crc32)
        return count


def mono_blocks(file: FileIO, pcm: Samples, frames: int, size: int, integers: bool = False) -> Iterator[np.ndarray]:
    """Mono float32 blocks of `frames` frames, read in pieces of `size` samples; full scale is 1, channels are averaged.
    `integers`: mono samples of 16 bits as they are, int16, where they have this machine's byte order.

    Raises BadAudio where a float is no number or absurdly large, or where the file has become shorter.
    """
    width, channels = pcm.bits // 8, pcm.channels
    count = max(1, min(size // channels, frames))
    skip = 1 if width == 3 and not pcm.big_endian else 0
    raw = np.empty(count * channels * width + 1, np.uint8)  # a byte more, which three bytes read as four may touch
    samples = _view(raw, pcm, count)
    whole = np.empty(samples.shape, np.int32) if width == 3 else None
    full_scale = 1 if pcm.kind == "f" else 1 << (31 if width == 3 else pcm.bits - 1)
    scale = np.float32(1 / (channels * full_scale))
    native = NATIVE.get(pcm[4:]) if channels == 1 else None
    native = native if integers or native is np.float32 else None
    file.seek(pcm.offset)
    for start in range(0, pcm.frames, frames):
        mono = np.empty(min(frames, pcm.frames - start), native or np.float32)
        for at in range(0, len(mono), count):
            part = mono[at : at + count]
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
    """Raise BadAudio where samples are no numbers or no sound."""
    if not max(samples.max(), -samples.min()) <= LOUDEST:
        raise BadAudio("NaN, infinite or absurdly large samples")


def _view(raw: np.ndarray, pcm: Samples, count: int) -> np.ndarray:
    """The samples [count, channels] in `raw`; three bytes as the upper ones of four that overlap their neighbour's."""
    width, order = pcm.bits // 8, ">" if pcm.big_endian else "<"
    kind = np.dtype(f"{order}{pcm.kind}{4 if width == 3 else width}")
    return np.ndarray((count, pcm.channels), kind, raw.data, 0, (pcm.channels * width, width))


@np.errstate(over="ignore", invalid="ignore")  # a double beyond float32's range becomes infinite, which is noticed
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
