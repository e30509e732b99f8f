"""What an audio file's own bytes say: its kind, where uncompressed samples lie, and whether the lengths that it claims are true.

libsndfile believes a header or silently shortens what it reads, so the chunks and pages are walked here first. Raised is
BadAudio, with the reason that goes into `quarantine.jsonl`.
"""

from __future__ import annotations

import functools
import struct
from io import FileIO

from preprocess.errors import BadAudio
from preprocess.pcm import Samples

UNKNOWN = 0xFFFFFFFF  # a length that a streaming writer left open (AU; WAV where both lengths say so)
_JUNK = 4_096  # bytes; so much (and no more than a sixteenth of the samples) may follow the samples unexplained
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_GUID_REST = bytes.fromhex("000000001000800000aa00389b71")  # of a GUID that begins with a format's code
_FORMATS = {1: "iu", 3: "f"}  # WAV: PCM (8 bits are unsigned), IEEE float
_BITS = {"i": (16, 24, 32), "u": (8,), "f": (32, 64)}
_AU = {2: ("i", 8), 3: ("i", 16), 4: ("i", 24), 5: ("i", 32), 6: ("f", 32), 7: ("f", 64)}  # by encoding
_UNCOMPRESSED_AIFC = (b"NONE", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64", b"raw ")
_MPEG_KBPS = {  # (version 1?, layer) → kbit/s by index
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def identify(head: bytes) -> str | None:
    """The kind of audio file that starts with `head` (4 KiB of it suffice): wav, au, aiff, flac, ogg, mpeg, tagged (ID3 first),
    or None.
    """
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for magic, kind in ((b".snd", "au"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "tagged")):
        if head.startswith(magic):
            return kind
    length = _mpeg_frame(head[:4])
    if length and (len(head) == length or _mpeg_frame(head[length : length + 4])):
        return "mpeg"
    return None


def check(file: FileIO, kind: str, size: int) -> Samples | None:
    """Hold the lengths that a file of `kind` and `size` bytes claims against what it holds; where uncompressed samples
    lie, for WAV and AU.
    """
    if kind == "wav":
        return _wav(file, size)
    if kind == "au":
        return _au(file, size)
    if kind == "aiff":
        _aiff(file, size)
    elif kind == "ogg":
        _ogg(file, size)
    elif kind in ("mpeg", "tagged"):
        _mpeg(file, size)
    return None


def _read(file: FileIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _chunk(file: FileIO, offset: int, size: int, order: str) -> tuple[bytes, int] | None:
    """Identifier and length of the RIFF or IFF chunk at `offset`; None where no chunk that fits in the file begins."""
    head = _read(file, offset, 8)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return None
    length = struct.unpack(order + "I", head[4:])[0]
    return (head[:4], length) if offset + 8 + length <= size else None


def _compare(claimed: int, held: int) -> None:
    if claimed > held:
        raise BadAudio(f"truncated, or its header lies: it claims {claimed} bytes of samples, the file holds {held}")
    if held == 0:
        raise BadAudio("no samples")


def _check_rest(file: FileIO, end: int, size: int, order: str | None, claimed: int) -> None:
    """What follows the samples must be chunks (where the format has them), a tag, zeros or a little junk: not more samples."""
    while order and end + 8 <= size:
        at = end + (end % 2 if _read(file, end, 1) == b"\0" else 0)
        chunk = _chunk(file, at, size, order)
        if chunk is None:
            break
        end = at + 8 + chunk[1]
    rest = size - end
    if rest <= min(_JUNK, max(claimed // 16, 8)):
        return
    head = _read(file, end, 1 << 16)
    if head.startswith(_TAGS) or not head.strip(b"\0"):
        return
    raise BadAudio(f"its header lies: it claims {claimed} bytes of samples, but {rest} more follow")


def _wav(file: FileIO, size: int) -> Samples | None:
    magic, riff = struct.unpack("<4sI", _read(file, 0, 8))
    order = ">" if magic == b"RIFX" else "<"
    offset, form, long = 12, None, None
    while True:
        head = _read(file, offset, 8)
        if len(head) < 8:
            raise BadAudio("a WAV header without samples")
        name, length = struct.unpack(order + "4sI", head)
        if name == b"data":
            break
        body = _read(file, offset + 8, min(length, 40))
        if name == b"fmt " and len(body) >= 16:
            form = (*struct.unpack(order + "HHIIHH", body[:16]), body[24:40])
        elif name == b"ds64" and len(body) >= 16:
            long = struct.unpack("<Q", body[8:16])[0]
        offset += 8 + length + length % 2
    if form is None:
        raise BadAudio("a WAV header without a format")
    code, channels, rate, _, block, bits, guid = form
    start = offset + 8
    held = size - start
    if length == UNKNOWN:
        length = long if long is not None else held if riff == UNKNOWN else length
    if length == 0 and held > 8 and _chunk(file, start, size, order) is None:
        raise BadAudio(f"its header lies: it claims no samples, but {held} bytes follow")
    _compare(length, held if length else 0)
    _check_rest(file, start + length, size, order, length)
    if code == 0xFFFE and guid[2:] == _GUID_REST:
        code = guid[0] + 256 * guid[1]
    for kind in _FORMATS.get(code, ""):
        if bits in _BITS[kind] and channels and block == bits // 8 * channels:
            return Samples(start, length // block, channels, rate, kind, bits, order == ">")
    return None


def _au(file: FileIO, size: int) -> Samples | None:
    head = _read(file, 0, 24)
    if len(head) < 24:
        raise BadAudio("an AU header cut short")
    _, start, length, code, rate, channels = struct.unpack(">4s5I", head)
    held = max(0, size - start)
    if length == UNKNOWN:
        length = held
    if length == 0 and held:
        raise BadAudio(f"its header lies: it claims no samples, but {held} bytes follow")
    _compare(length, held)
    _check_rest(file, start + length, size, None, length)
    if code not in _AU or not channels:
        return None
    kind, bits = _AU[code]
    return Samples(start, length // (bits // 8 * channels), channels, rate, kind, bits, True)


def _aiff(file: FileIO, size: int) -> None:
    offset, expected = 12, None
    while True:
        head = _read(file, offset, 8)
        if len(head) < 8:
            raise BadAudio("an AIFF header without samples")
        name, length = struct.unpack(">4sI", head)
        body = _read(file, offset + 8, min(length, 22))
        if name == b"COMM" and len(body) >= 18:
            channels, frames, bits = struct.unpack(">HIH", body[:8])
            if len(body) < 22 or body[18:22] in _UNCOMPRESSED_AIFC:
                expected = frames * channels * -(-bits // 8)
        elif name == b"SSND":
            skip = struct.unpack(">I", body[:4])[0] if len(body) >= 4 else 0
            claimed = max(0, length - 8 - skip)
            _compare(max(claimed, expected or 0), size - offset - 16 - skip)
            if claimed == 0:
                raise BadAudio("no samples")
            return
        offset += 8 + length + length % 2


def _ogg(file: FileIO, size: int) -> None:
    """The last page must be whole and marked as the end of the stream (RFC 3533, §6)."""
    tail_at = max(0, size - (1 << 17))  # the largest page has 65,307 bytes
    tail = _read(file, tail_at, size - tail_at)
    at = tail.rfind(b"OggS")
    page = tail[at:]
    whole = at >= 0 and len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole:
        raise BadAudio("truncated: the last Ogg page is cut")
    if not page[5] & 4:
        raise BadAudio("truncated: the Ogg stream has no end")


@functools.lru_cache(maxsize=1 << 12)  # a file's frames have few different headers
def _mpeg_frame(head: bytes) -> int | None:
    """Length in bytes of the MPEG audio frame whose header this is (ISO 11172-3, §2.4.2.3); None where it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or not 1 <= bitrate <= 14 or rate == 3:
        return None
    bits = 1000 * _MPEG_KBPS[version == 3, layer][bitrate - 1]
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def _mpeg(file: FileIO, size: int) -> None:
    """Every frame must be whole; after the last one nothing but tags may follow."""
    data = _read(file, 0, size)
    at = 0
    if data.startswith(b"ID3") and len(data) >= 10:
        at = 10 + sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
        if data[at : at + 4] == b"fLaC":
            return
        while at < size and data[at] == 0:  # padding after the tag
            at += 1
    frames = 0
    while length := _mpeg_frame(data[at : at + 4]):
        at += length
        frames += 1
    if not frames:
        raise BadAudio("not audio: no MPEG frame where one should begin")
    if at > size:
        raise BadAudio(f"truncated: the last of {frames} MPEG frames is cut")
    rest = data[at:]
    if len(rest) > min(_JUNK, at // 16) and not rest.startswith(_TAGS) and rest.strip(b"\0"):
        raise BadAudio(f"damaged: at byte {at} of {size}, after {frames} MPEG frames, no other one begins")
