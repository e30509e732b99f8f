"""Find the frames of MPEG audio files, layers I to III.

Only the frames determine the length of such a file. The count of a Xing, Info or VBRI header can be absent,
too small (concatenated files) or too large (truncated files). Decoders that trust it, or that estimate the
length from the bit rate, lose samples.
"""

from __future__ import annotations

import functools
import mmap
import struct
from typing import NamedTuple

from shardwave.common.errors import BadAudio

Bytes = bytes | mmap.mmap
JUNK = 4_096  # bytes of no known kind that may follow the last frame
# samples that a layer III decoder adds at the start; the LAME tag has only the delay of the encoder
DECODER_DELAY = 529
_KBPS = {  # kbit/s by (is version 1, layer) and index
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Kind(NamedTuple):
    """Properties that are the same for all frames of a stream."""

    layer: int
    rate: int  # Hz
    channels: int
    samples: int  # per frame

    def __str__(self) -> str:
        return (
            f"layer {self.layer}, {self.rate} Hz, {self.channels} channel{'s' if self.channels > 1 else ''}"
        )


class MpegStream(NamedTuple):
    """The frames of a file and properties of their samples."""

    data: bytes | memoryview  # all frames, without tags and header frame
    kind: Kind
    frames: int
    largest: int  # bytes of the longest frame
    skip: int  # samples to drop at the start: delay of encoder and decoder, if a LAME tag states it
    drop: int  # samples to drop at the end: padding of the encoder, if a LAME tag states it
    # samples lost by a truncated frame, by damaged bytes, or by frames that only the header counts
    missing: int
    reason: str | None  # reason for missing samples


@functools.lru_cache(maxsize=1 << 12)  # the frames of a file have few different headers
def frame_header(head: bytes) -> tuple[int, Kind] | None:
    """Parse a frame header (ISO 11172-3, section 2.4.2.3).

    Args:
        head: Four bytes.

    Returns:
        Length of the frame in bytes and its kind; None if the bytes are no header, or one of free format.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or not 1 <= bitrate <= 14 or rate == 3:
        return None
    bits = 1000 * _KBPS[version == 3, layer][bitrate - 1]
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = head[2] >> 1 & 1
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1_152
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    return length, Kind(layer, hertz, 1 if head[3] >> 6 == 3 else 2, samples)


def find_frame(data: Bytes, start: int, kind: Kind | None = None, following: int = 2) -> int:
    """Find the first frame at or after `start` that is followed by frames of the same kind.

    Args:
        data: The file's bytes.
        start: First position of the search.
        kind: Kind of the frame; None for any.
        following: Number of frames that must follow, unless the file ends before.

    Returns:
        The position of the frame, or -1.
    """
    position = data.find(b"\xff", start)
    while position >= 0:
        end, frames, wanted = position, 0, kind
        while (header := frame_header(data[end : end + 4])) and header[1] == (wanted or header[1]):
            end, frames, wanted = end + header[0], frames + 1, header[1]
            if frames > following or end >= len(data):
                break
        if frames > following or (frames > 1 and end >= len(data)) or (frames and end == len(data)):
            return position
        position = data.find(b"\xff", position + 1)
    return -1


def skip_id3(data: Bytes, position: int) -> int:
    """Return the position after the ID3v2 tags at `position`, including footers and padding."""
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        size = sum(
            (byte & 127) << shift
            for byte, shift in zip(data[position + 6 : position + 10], (21, 14, 7, 0), strict=True)
        )
        position += 10 + size + (10 if data[position + 5] & 0x10 else 0)
    return min(position, len(data))


def read(data: Bytes) -> MpegStream:
    """Find the frames of a file.

    Args:
        data: The file's bytes; it may begin with tags or in the middle of a frame.

    Returns:
        The frames, and the number of samples that are lost.

    Raises:
        BadAudio: There is no frame, or the layer, the rate or the number of channels changes.
    """
    first = find_frame(data, _skip_zeros(data, skip_id3(data, 0)))
    if first < 0:
        raise BadAudio("not audio: no MPEG frame where one should begin")
    header = frame_header(data[first : first + 4])
    assert header is not None
    kind = header[1]
    stated, skip, drop, is_header = _stated(data[first : first + header[0]], kind)
    runs, frames, largest, lost, reasons = [], 0, 0, 0, []
    position = begin = first + (header[0] if is_header else 0)
    while True:
        while (header := frame_header(data[position : position + 4])) and header[1] == kind:
            if position + header[0] > len(data):
                break
            position += header[0]
            largest = max(largest, header[0])
            frames += 1
        runs.append(memoryview(data)[begin:position])
        if header and header[1] == kind:
            reasons.append(f"the last of {frames + 1} MPEG frames is cut")
            lost += kind.samples
            break
        end = _skip_zeros(data, _skip_tag(data, position))
        if end >= len(data):
            break
        header = frame_header(data[end : end + 4])
        if end == position or not header or header[1] != kind:
            if header and find_frame(data, end) == end:
                raise BadAudio(
                    f"its MPEG frames change at byte {end} from {kind} to {header[1]}: convert it to one rate"
                )
            begin = find_frame(data, end, kind)
            rest = (begin if begin >= 0 else len(data)) - end
            if begin >= 0 or (rest > min(JUNK, position // 16) and not 0 < stated <= frames):
                reasons.append(
                    f"at byte {end} of {len(data)}, after {frames} MPEG frames, {rest} bytes are none"
                )
                lost += rest * kind.samples * max(1, frames) // max(1, sum(map(len, runs)))
            if begin < 0:
                break
            end = begin
        position = begin = end
    if not frames:
        raise BadAudio("no samples: an MPEG header without frames")
    if stated > frames:
        lost = max(lost, (stated - frames) * kind.samples)
        reasons.append(f"its header counts {stated} MPEG frames, the file holds {frames}")
    if stated != frames:
        drop = 0
    frames_alone = runs[0] if len(runs) == 1 else b"".join(runs)
    return MpegStream(frames_alone, kind, frames, largest, skip, drop, lost, "; ".join(reasons) or None)


def _stated(frame: bytes, kind: Kind) -> tuple[int, int, int, bool]:
    """Parse the first frame as a header frame (Xing, Info or VBRI).

    Returns the stated number of frames (0: unknown), the samples to skip at the start and to drop at the end,
    and whether the frame is a header.
    """
    if kind.layer == 3:
        side = {(1, False): 9, (2, False): 17, (1, True): 17, (2, True): 32}[
            kind.channels, kind.samples == 1_152
        ]
        if frame[4 + side : 8 + side] in (b"Xing", b"Info") and len(frame) >= 12 + side:
            flags, count = struct.unpack(">II", frame[8 + side : 16 + side].ljust(8, b"\0"))
            lame = 12 + side + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
            skip = drop = 0
            if frame[lame : lame + 4] in (b"LAME", b"Lavf", b"Lavc") and len(frame) >= lame + 24:
                delays = int.from_bytes(frame[lame + 21 : lame + 24], "big")
                skip, drop = (delays >> 12) + DECODER_DELAY, max(0, (delays & 0xFFF) - DECODER_DELAY)
            return (count if flags & 1 else 0), skip, drop, True
        if frame[36:40] == b"VBRI" and len(frame) >= 54:
            return int.from_bytes(frame[50:54], "big"), 0, 0, True
    return 0, 0, 0, False


def _skip_zeros(data: Bytes, position: int) -> int:
    while position < len(data) and data[position] == 0:
        rest = data[position : position + 4_096]
        position += len(rest) - len(rest.lstrip(b"\0"))
    return position


def _skip_tag(data: Bytes, position: int) -> int:
    """Return the position after the tags at `position`; the end of the file if a tag is truncated."""
    while True:
        start = position
        head = data[position : position + 32]
        if head.startswith(b"ID3"):
            position = skip_id3(data, position)
        elif head.startswith(b"TAG+"):
            position += 227
        elif head.startswith(b"TAG"):
            position += 128
        # the size counts the footer and not the header; there may be a footer without a header
        elif head.startswith(b"APETAGEX"):
            is_header = len(head) == 32 and head[23] & 0x20
            position += 32 + (int.from_bytes(head[12:16], "little") if is_header or len(head) < 32 else 0)
        elif head.startswith(b"LYRICSBEGIN"):
            ends = [
                end + 9 for mark in (b"LYRICS200", b"LYRICSEND") if (end := data.find(mark, position)) >= 0
            ]
            position = min(ends, default=len(data))
        if position == start:
            return min(position, len(data))
