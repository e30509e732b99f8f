"""Find the streams of a FLAC file and the number of samples of each, from its last frame (RFC 9639).

libsndfile reads as many samples as the header states. Streaming writers leave that number undefined,
concatenated files have several headers, and in a truncated file the number is too large.
"""

from __future__ import annotations

import functools
import re
import struct
from typing import NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.mpeg import Bytes

# the marker, then type and length of the first metadata block
_HEADER = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
# samples by code
_BLOCKS = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
# bytes at the end that are searched for the last frame, if the header does not state the longest frame
_TAIL = 1 << 16
_COUNT = (1 << 36) - 1


class FlacStream(NamedTuple):
    """One FLAC stream, with a header that states the number of its samples."""

    data: bytes | None  # None: all bytes of the file, unchanged
    rate: int  # Hz
    channels: int
    samples: int  # per channel
    # samples that the original header states but the stream lacks, or those of a truncated frame
    missing: int
    reason: str | None  # reason for missing samples


class _Frame(NamedTuple):
    position: int  # bytes
    start: int  # samples
    samples: int


def streams(data: Bytes) -> list[FlacStream]:
    """Split a file into its FLAC streams.

    Args:
        data: The file's bytes, which may begin with ID3 tags.

    Returns:
        The streams in order; most files hold one.

    Raises:
        BadAudio: A header is truncated, or no frame follows it.
    """
    starts = [match.start() for match in _HEADER.finditer(data)]
    if not starts:
        raise BadAudio("not audio: a FLAC marker without a header")
    if starts == [0]:
        return [_stream(memoryview(data), alone=True)]
    return [
        _stream(memoryview(data)[start:stop])
        for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)
    ]


def _stream(data: memoryview, alone: bool = False) -> FlacStream:
    if len(data) < 42:
        raise BadAudio("a FLAC header that is cut")
    shortest, longest_block = struct.unpack(">HH", data[8:12])
    longest_frame = int.from_bytes(data[15:18], "big")
    packed = int.from_bytes(data[18:26], "big")
    rate, channels, stated = packed >> 44, (packed >> 41 & 7) + 1, packed & _COUNT
    begin, last = 4, False
    while not last and begin + 4 <= len(data):
        last = bool(data[begin] & 0x80)
        begin += 4 + int.from_bytes(data[begin + 1 : begin + 4], "big")
    frames = _frames(
        data, begin, max(2 * longest_frame, _TAIL), shortest if shortest == longest_block else 0, channels
    )
    if not frames:
        raise BadAudio("no samples: a FLAC header without frames")
    final = frames[-1]
    samples, reason = final.start + final.samples, None
    body = data[:-128] if bytes(data[-128:-125]) == b"TAG" else data
    if not _is_whole(bytes(body[final.position :])):
        body, samples, reason = data[: final.position], final.start, "its last FLAC frame is cut"
    if stated > samples:
        reason = f"its header states {stated} samples, the file holds {samples}"
    missing = max(stated - samples, final.start + final.samples - samples)
    if not samples:
        raise BadAudio("no samples: the only FLAC frame is cut")
    content = None
    if stated != samples:
        content = b"".join((body[:18], (packed & ~_COUNT | samples).to_bytes(8, "big"), body[26:]))
    elif not alone or reason:
        content = bytes(body)
    return FlacStream(content, rate, channels, samples, missing, reason)


def _frames(data: memoryview, begin: int, tail: int, block: int, channels: int) -> list[_Frame]:
    """Return the frames in the last `tail` bytes, of `block` samples each (0: the number varies)."""
    frames = []
    for match in _SYNC.finditer(data, max(begin, len(data) - tail)):
        frame = _frame(data, match.start(), block, channels)
        if frame is not None:
            frames.append(frame)
    return frames


def _frame(data: memoryview, position: int, block: int, channels: int) -> _Frame | None:
    """Parse the frame header at `position` (RFC 9639, section 9.1); None if none has `channels` channels."""
    head = bytes(data[position : position + 16])
    if len(head) < 6 or head[3] & 1:
        return None
    size, assigned = head[2] >> 4, head[3] >> 4
    if (assigned + 1 if assigned < 8 else 2 if assigned < 11 else 0) != channels or size == 0:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # leading ones: bytes of the number, as in UTF-8
    if ones == 1 or ones == 8:
        return None
    count = max(1, ones)
    number = head[4] & (0x7F >> ones)
    for byte in head[5 : 4 + count]:
        number = number << 6 | byte & 0x3F
    end = 4 + count
    samples = _BLOCKS[size]
    if size in (6, 7):
        samples = int.from_bytes(head[end : end + size - 5], "big") + 1
        end += size - 5
    end += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if len(head) <= end or _crc8(head[:end]) != head[end]:
        return None
    is_variable = head[1] & 1
    return _Frame(position, number if is_variable else number * (block or samples), samples)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x107) if crc & 0x80 else crc << 1
    return crc


@functools.cache
def _crc16_table() -> list[int]:
    """Return the CRC remainder of each 16-bit word for the polynomial x^16 + x^15 + x^2 + 1."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = np.where(table & 0x8000, table << 1 ^ 0x18005, table << 1)
    return table.tolist()


def _is_whole(frame: bytes) -> bool:
    """Return whether a valid checksum ends the frame, at the end of the bytes or before other bytes."""
    table, crc = _crc16_table(), 0
    words = b"\0" + frame if len(frame) % 2 else frame  # a zero in front does not change the remainder
    for word in struct.unpack(f">{len(words) // 2}H", words):
        crc = table[crc ^ word]
    if crc == 0:
        return True
    crc = 0
    for number, byte in enumerate(frame):
        crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ byte]
        if crc == 0 and number > 8:
            return True
    return False
