"""Split Ogg files into their logical streams (RFC 3533); libsndfile reads only the first stream of a file."""

from __future__ import annotations

import struct
from typing import NamedTuple

from shardwave.common.errors import BadAudio, UnknownEncoding
from shardwave.preprocess.audio.mpeg import Bytes

_FLAC = b"\x7fFLAC"
_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", _FLAC: "FLAC", b"Speex   ": "Speex"}
_BEGIN, _END = 2, 4  # flags of a page


class OggStream(NamedTuple):
    """One logical audio stream."""

    # pages of the stream (for FLAC, the stream without pages); None: all bytes of the file
    data: bytes | None
    codec: str
    missing: int  # samples of a truncated page
    reason: str | None  # defect of the stream


class _Page(NamedTuple):
    position: int
    size: int
    flags: int
    granule: int
    serial: int
    head: int  # bytes of the header


def streams(data: Bytes) -> list[OggStream]:
    """Split a file into its audio streams.

    Args:
        data: The file's bytes.

    Returns:
        The audio streams in order; concatenated files have several. Other streams, such as video, are
        ignored.

    Raises:
        BadAudio: The last page is truncated and its number of samples is unknown, bytes between pages belong
            to no page, or there is no audio stream.
    """
    pages, cut = _pages(data)
    links: list[list[_Page]] = []
    for page in pages:
        if page.flags & _BEGIN and (not links or not links[-1][-1].flags & _BEGIN):
            links.append([])
        elif not links:
            raise BadAudio("truncated: the Ogg file does not begin with the first page of a stream")
        links[-1].append(page)
    missing = 0
    if cut is not None:
        missing = cut.granule - pages[-1].granule if cut.serial == pages[-1].serial and cut.granule > 0 else 0
        if not (cut.flags & _END and missing > 0):
            raise BadAudio(
                f"truncated: the last Ogg page is cut, at byte {cut.position}, and the stream has no end"
            )
    audio = [stream for link in links if (stream := _stream(data, link, len(links) == 1)) is not None]
    if not audio:
        raise BadAudio("an Ogg file without a Vorbis, Opus or FLAC stream")
    if cut is not None:
        audio[-1] = audio[-1]._replace(missing=missing, reason="the last Ogg page is cut")
    return audio


def _pages(data: Bytes) -> tuple[list[_Page], _Page | None]:
    """Return all complete pages, and the header of the last page if it is truncated."""
    pages: list[_Page] = []
    position = 0
    while position < len(data):
        head = data[position : position + 27]
        if not head.startswith(b"OggS"):
            rest = data[position:]
            if rest[:3] == b"TAG" or not rest.strip(b"\0"):  # ID3v1, padding
                break
            if len(rest) < 27 and b"OggS".startswith(rest[:4]):
                raise BadAudio(f"truncated: the last Ogg page is cut, at byte {position}")
            following = data.find(b"OggS", position)
            count = (len(data) if following < 0 else following) - position
            raise BadAudio(f"damaged: at byte {position} of {len(data)}, {count} bytes are no Ogg page")
        if len(head) < 27:
            raise BadAudio(f"truncated: the last Ogg page is cut, at byte {position}")
        _, _, flags, granule, serial, _, _, segments = struct.unpack("<4sBBqIIIB", head)
        size = 27 + segments + sum(data[position + 27 : position + 27 + segments])
        page = _Page(position, size, flags, granule, serial, 27 + segments)
        if position + size > len(data):
            if not pages:
                raise BadAudio("truncated: the only Ogg page is cut")
            return pages, page
        pages.append(page)
        position += size
    return pages, None


def _stream(data: Bytes, link: list[_Page], alone: bool) -> OggStream | None:
    """Return the audio stream in the pages of one link, or None."""
    codecs = {}
    for page in link:
        if page.flags & _BEGIN:
            packet = data[page.position + page.head : page.position + page.size]
            codecs[page.serial] = next(
                (name for mark, name in _CODECS.items() if packet.startswith(mark)), None
            )
    serial = next((serial for serial, codec in codecs.items() if codec is not None), None)
    if serial is None:
        return None
    codec = codecs[serial]
    assert codec is not None
    if codec == "Speex":
        raise UnknownEncoding("Ogg Speex")
    own = [page for page in link if page.serial == serial]
    if len(own) < 2:
        raise BadAudio("no samples: an Ogg stream with a header alone")
    reason = None if own[-1].flags & _END else "the Ogg stream has no end mark"
    if codec == "FLAC":
        bodies = [data[page.position + page.head : page.position + page.size] for page in own]
        bodies[0] = bodies[0][9:]  # without the version and the number of header packets of the mapping
        return OggStream(b"".join(bodies), codec, 0, reason)
    last = link[-1]
    if alone and len(own) == len(link) and last.position + last.size == len(data):
        return OggStream(None, codec, 0, reason)
    return OggStream(
        b"".join(data[page.position : page.position + page.size] for page in own), codec, 0, reason
    )
