"""Identify audio files by their bytes, and find the samples of WAV, AU and AIFF files.

libsndfile reports no error if a file has fewer samples than its header states. The lengths in WAV, AU and
AIFF headers are therefore compared with the size of the file first. If a streaming writer left the length
undefined, the samples extend to the end of the file.
"""

from __future__ import annotations

import struct
from io import FileIO
from typing import NamedTuple

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.mpeg import find_frame
from shardwave.preprocess.audio.pcm import Samples

# a length of at least OPEN is undefined if the file is shorter; streaming writers leave such values
OPEN = 0x7F00_0000
_UNKNOWN = 0xFFFF_FFFF  # unknown length in RF64, BW64 (the chunk ds64 has the true one) and AU
# maximum number of unknown bytes after the samples; a sixteenth of the samples if that is less
_JUNK = 4_096
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
# end of a GUID that begins with the code of a format
_GUID_REST = bytes.fromhex("000000001000800000aa00389b71")
_FORMATS = {1: "iu", 3: "f"}  # WAV: PCM (8 bits are unsigned), IEEE float
_MPEG_FORMATS = (0x50, 0x55)  # WAV: MPEG layers I and II, layer III
_BITS = {"i": (16, 24, 32), "u": (8,), "f": (32, 64)}
_AU = {2: ("i", 8), 3: ("i", 16), 4: ("i", 24), 5: ("i", 32), 6: ("f", 32), 7: ("f", 64)}  # by encoding
_AIFC = {  # compression type -> kind of sample, big endian?
    b"NONE": ("i", True), b"twos": ("i", True), b"sowt": ("i", False), b"raw ": ("u", True),
    b"in24": ("i", True), b"in32": ("i", True),
    b"fl32": ("f", True), b"FL32": ("f", True), b"fl64": ("f", True), b"FL64": ("f", True),
}  # fmt: skip
_MAGIC = (
    (b".snd", "au"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "tagged"),
    (b"caff", "other"), (b"Creative Voice File", "other"), (b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb", "other"),
)  # fmt: skip
_FOREIGN = (  # offset and first bytes of formats that only FFmpeg reads, and their names
    *(
        (4, b"ftyp" + brand, "MP4 or M4A (AAC or ALAC)")
        for brand in (b"M4A", b"M4B", b"M4P", b"mp4", b"iso", b"qt  ", b"dash", b"3gp")
    ),
    (0, bytes.fromhex("3026b2758e66cf11"), "WMA (ASF)"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"#!AMR", "AMR"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b"ADIF", "AAC"),
    (0, b".RMF", "RealAudio"),
    (0, b".ra\xfd", "RealAudio"),
)
FOREIGN_SUFFIXES = {
    ".m4a": "MP4 or M4A (AAC or ALAC)", ".m4b": "MP4 or M4A (AAC or ALAC)",
    ".mp4": "MP4 or M4A (AAC or ALAC)", ".aac": "AAC", ".3gp": "3GP (AMR or AAC)", ".wma": "WMA (ASF)",
    ".webm": "Matroska or WebM", ".mka": "Matroska or WebM", ".ape": "Monkey's Audio", ".wv": "WavPack",
    ".tta": "True Audio", ".mpc": "Musepack", ".amr": "AMR", ".dsf": "DSD", ".dff": "DSD", ".ac3": "AC-3",
    ".ra": "RealAudio", ".spx": "Speex",
}  # fmt: skip


class Layout(NamedTuple):
    """Position of the samples in a WAV, AU or AIFF file.

    If all of `pcm`, `mpeg` and `rebuilt` are None, libsndfile decodes the file as it is.
    """

    pcm: Samples | None = None  # uncompressed samples
    mpeg: tuple[int, int] | None = None  # bytes [start, stop) of an MPEG stream
    # the file with a corrected header, if a compressed file has a wrong or open length
    rebuilt: bytes | None = None
    missing: float = 0.0  # seconds that the header states and the file does not contain
    reason: str | None = None  # reason for missing seconds


def identify(head: bytes) -> str | None:
    """Identify the kind of an audio file by its first bytes.

    Args:
        head: The first 4 KiB, or all bytes of a smaller file.

    Returns:
        `wav`, `au`, `aiff`, `flac`, `ogg`, `mpeg`, `tagged` (begins with an ID3 tag), `other` (further
        formats of libsndfile), `foreign` (formats that only FFmpeg reads), or None if the file is no audio.
    """
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if foreign_name(head) is not None:
        return "foreign"
    return "mpeg" if find_frame(head, 0) >= 0 else None


def foreign_name(head: bytes) -> str | None:
    """Return the name of a format that only FFmpeg reads, by the first bytes of a file, or None."""
    for offset, magic, name in _FOREIGN:
        if head.startswith(magic, offset):
            return name
    return "AAC (ADTS)" if _adts_frames(head) > 1 else None


def _adts_frames(head: bytes) -> int:
    """Return the number of consecutive ADTS frames at the start."""
    position = frames = 0
    while (
        head[position : position + 1] == b"\xff"
        and len(head) > position + 6
        and head[position + 1] & 0xF6 == 0xF0
    ):
        length = (head[position + 3] & 3) << 11 | head[position + 4] << 3 | head[position + 5] >> 5
        if length < 7:  # the header alone has 7 bytes
            break
        position += length
        frames += 1
    return frames


def layout(file: FileIO, kind: str, size: int) -> Layout:
    """Find the samples of a WAV, AU or AIFF file and compare the stated length with the size of the file.

    Args:
        file: The open file.
        kind: `wav`, `au` or `aiff`.
        size: Size of the file in bytes.

    Returns:
        Position and format of the samples, and the missing seconds.

    Raises:
        BadAudio: The file has no samples, an invalid header, or more samples than its header states.
    """
    return {"wav": _wav, "au": _au, "aiff": _aiff}[kind](file, size)


def _read(file: FileIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _chunk(file: FileIO, offset: int, size: int, order: str) -> tuple[bytes, int] | None:
    """Return identifier and length of the RIFF or IFF chunk at `offset`; None if none fits in the file."""
    head = _read(file, offset, 8)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return None
    length = struct.unpack(order + "I", head[4:])[0]
    return (head[:4], length) if offset + 8 + length <= size else None


def _held(stated: int, held: int, byte_rate: float) -> tuple[int, float, str | None]:
    """Return the bytes of samples in the file, the missing seconds of the stated length, and the reason."""
    if stated <= 0:
        raise BadAudio("no samples")
    if held <= 0:
        raise BadAudio(f"truncated: its header states {stated} bytes of samples, the file holds none")
    if stated <= held:
        return stated, 0.0, None
    missing = (stated - held) / byte_rate if byte_rate > 0 else 0.0
    return held, missing, f"its header states {stated} bytes of samples, the file holds {held}"


def _check_rest(file: FileIO, end: int, size: int, order: str | None, claimed: int) -> None:
    """Raise BadAudio if other data than chunks, tags, zeros or a few unknown bytes follow byte `end`."""
    while order and end + 8 <= size:
        start = end + (end % 2 if _read(file, end, 1) == b"\0" else 0)
        chunk = _chunk(file, start, size, order)
        if chunk is None:
            break
        end = start + 8 + chunk[1]
    rest = size - end
    if rest <= min(_JUNK, max(claimed // 16, 8)):
        return
    head = _read(file, end, 1 << 16)
    if head.startswith(_TAGS) or not head.strip(b"\0"):
        return
    raise BadAudio(f"its header is wrong: it states {claimed} bytes of samples, but {rest} more bytes follow")


def _wav(file: FileIO, size: int) -> Layout:
    magic, _ = struct.unpack("<4sI", _read(file, 0, 8))
    order = ">" if magic == b"RIFX" else "<"
    offset, form, long, kept = 12, None, None, b""
    while True:
        head = _read(file, offset, 8)
        if len(head) < 8:
            raise BadAudio("a WAV header without samples")
        name, length = struct.unpack(order + "4sI", head)
        if name == b"data":
            break
        body = _read(file, offset + 8, min(length, 4_096))
        if name == b"fmt " and len(body) >= 16:
            form = (*struct.unpack(order + "HHIIHH", body[:16]), body[24:40])
        elif name == b"ds64" and len(body) >= 16:
            long = struct.unpack("<Q", body[8:16])[0]
        if name in (b"fmt ", b"fact"):
            kept += head + body + b"\0" * (len(body) % 2)
        offset += 8 + length + length % 2
    if form is None:
        raise BadAudio("a WAV header without a format")
    code, channels, rate, byte_rate, block, bits, guid = form
    start = offset + 8
    held = size - start
    if length == _UNKNOWN and long is not None:
        length = long
    is_open = (
        length >= OPEN
        and length > held
        or length == 0
        and held > 8
        and _chunk(file, start, size, order) is None
    )
    stated = held if is_open else length
    if code == 0xFFFE and guid[2:] == _GUID_REST:
        code = guid[0] + 256 * guid[1]
    length, missing, reason = _held(stated, held, byte_rate)
    if not reason:
        _check_rest(file, start + length, size, order, length)
    for kind in _FORMATS.get(code, ""):
        if bits in _BITS[kind] and channels and block == bits // 8 * channels:
            pcm = Samples(start, length // block, channels, rate, kind, bits, order == ">")
            return Layout(pcm, missing=missing, reason=reason)
    if code in _MPEG_FORMATS:
        return Layout(mpeg=(start, start + length), missing=missing, reason=reason)
    if not (is_open or reason or magic == b"BW64"):
        return Layout()
    data = kept + struct.pack(order + "4sI", b"data", length) + _read(file, start, length)
    riff = struct.pack(order + "4sI", magic if order == ">" else b"RIFF", 4 + len(data)) + b"WAVE" + data
    return Layout(rebuilt=riff, missing=missing, reason=reason)


def _au(file: FileIO, size: int) -> Layout:
    head = _read(file, 0, 24)
    if len(head) < 24:
        raise BadAudio("an AU header cut short")
    _, start, length, code, rate, channels = struct.unpack(">4s5I", head)
    held = max(0, size - start)
    is_open = length >= OPEN and length > held or length == 0
    kind, bits = _AU.get(code, ("", 8))
    block = bits // 8 * channels
    stated, missing, reason = _held(held if is_open else length, held, block * rate)
    if not reason:
        _check_rest(file, start + stated, size, None, stated)
    if kind and channels:
        return Layout(
            Samples(start, stated // block, channels, rate, kind, bits, True), missing=missing, reason=reason
        )
    if not (is_open or reason):
        return Layout()
    rebuilt = struct.pack(">4s5I", b".snd", 24, stated, code, rate, channels) + _read(file, start, stated)
    return Layout(rebuilt=rebuilt, missing=missing, reason=reason)


def _aiff(file: FileIO, size: int) -> Layout:
    offset, common = 12, b""
    while True:
        head = _read(file, offset, 8)
        if len(head) < 8:
            raise BadAudio("an AIFF header without samples")
        name, length = struct.unpack(">4sI", head)
        if name == b"SSND":
            break
        if name == b"COMM":
            common = _read(file, offset + 8, min(length, 22))
        offset += 8 + length + length % 2
    if len(common) < 18:
        raise BadAudio("an AIFF header without a format")
    channels, frames, bits = struct.unpack(">HIH", common[:8])
    rate = _extended(common[8:18])
    kind, big_endian = _AIFC.get(common[18:22] or b"NONE", ("", True))
    skip = int.from_bytes(_read(file, offset + 8, 4), "big")
    start = offset + 16 + skip
    held = size - start
    stated = max(0, length - 8 - skip)
    width = 8 * -(-bits // 8)
    if width not in {"i": (8, 16, 24, 32), "u": (8,), "f": (32, 64)}.get(kind, ()):
        kind = ""
    block = width // 8 * channels
    is_open = held > 0 and (stated >= OPEN and stated > held or stated == 0 and frames == 0)
    if kind and not is_open:
        stated = max(stated, frames * block)
    stated, missing, reason = _held(held if is_open else stated, held, block * rate)
    if kind and block:
        pcm = Samples(start, stated // block, channels, rate, kind, width, big_endian)
        return Layout(pcm, missing=missing, reason=reason)
    if is_open:
        raise BadAudio(
            f"an AIFF file of open length whose encoding {common[18:22]!r} is not read here: convert it to "
            "WAV"
        )
    return Layout(missing=missing, reason=reason)


def _extended(data: bytes) -> int:
    """Return an 80-bit floating-point number, rounded; 0 if it cannot be a sample rate."""
    exponent, mantissa = struct.unpack(">HQ", data)
    return round(mantissa * 2.0 ** (exponent - 16_446)) if 16_383 <= exponent < 16_383 + 32 else 0
