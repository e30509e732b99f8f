"""Reads plain tar streams that may come from anybody: what could leave its folder, run code or fill the memory is refused.

Only regular files pass, with relative names, of a bounded size, and never a pickle: nothing is unpacked to disk or executed.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from shardwave.common.errors import ShardwaveError

MAX_MEMBER = 256 << 20  # bytes
MAX_NAME = 64 << 10  # bytes, of an extended header
PICKLES = frozenset({"pickle", "pkl", "pyd", "pth", "pt", "ckpt", "joblib", "dill", "pyc", "py"})
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PIECE = 1 << 18  # bytes asked of a stream at a time, at least
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int  # of its data, bytes
    data: bytes


class _Refused(Exception):
    """Why a member is refused; raised past `tarfile`, which swallows its own errors at the end of an archive."""


class _BoundedTarInfo(tarfile.TarInfo):
    """A header whose size is looked at before any of its data are read."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _BoundedTarInfo:
        found = super().frombuf(buf, encoding, errors)
        limit = MAX_NAME if found.type in _EXTENDED else MAX_MEMBER
        if not 0 <= found.size <= limit:
            raise _Refused(f"{found.name!r} declares {found.size} bytes, more than {limit}")
        return found


class _Forward:
    """A stream as `tarfile` wants a file: it tells its place, and seeks ahead. Reads are exact but at the end."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._buffer = memoryview(b"")
        self._place = 0
        self.tail = b""  # the last bytes that were read, up to a block

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> None:
        if place < self._place:
            raise tarfile.ReadError(f"would have to go back from byte {self._place} to {place}")
        while self._place < place and self.read(min(place - self._place, _PIECE)):
            pass

    def read(self, size: int) -> bytes:
        parts = [self._buffer[:size]]
        self._buffer = self._buffer[size:]
        missing = size - len(parts[0])
        while missing:
            piece = memoryview(self._stream.read(max(missing, _PIECE)))
            if not piece:
                break
            parts.append(piece[:missing])
            self._buffer = piece[missing:]
            missing -= len(parts[-1])
        data = b"".join(parts)
        self._place += len(data)
        self.tail = (self.tail + data)[-512:] if len(data) < 512 else data[-512:]
        return data


def members(stream: IO[bytes], where: str) -> Iterator[Member]:
    """The regular files of an uncompressed tar, in order; `stream` needs `read` only, `where` names it in errors.

    Raises ShardwaveError for a member that is refused, and for a tar that is damaged or ends before its end mark.
    """
    forward = _Forward(stream)
    try:
        with tarfile.open(fileobj=forward, mode="r:", tarinfo=_BoundedTarInfo) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                check(info.name, info.type, info.size, where)
                archive.members = []  # it would keep every header
                if info.isdir():
                    continue
                forward.seek(info.offset_data)
                data = forward.read(info.size)
                if len(data) != info.size:
                    raise ShardwaveError(f"{where}: truncated in {info.name}")
                yield Member(info.name, info.offset_data, data)
        while forward.read(_PIECE):
            pass
    except _Refused as refusal:
        raise ShardwaveError(f"{where}: refused, {refusal}") from None
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise ShardwaveError(f"{where}: truncated or not a plain tar file ({error})") from None
    if forward.tell() % 512 or forward.tail.strip(b"\0"):
        raise ShardwaveError(f"{where}: truncated (the end mark of the tar is missing)")


def check(name: str, kind: bytes, size: int, where: str) -> None:
    """Raise ShardwaveError for a member that is no plain file or folder, that points outside, is a pickle, or is huge."""
    path = PurePosixPath(name)
    suffixes = {part.lower() for part in path.name.split(".")[1:]}
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ShardwaveError(f"{where}: refused, member {name!r} points outside the shard")
    if kind not in (*_PLAIN, tarfile.DIRTYPE):
        raise ShardwaveError(f"{where}: refused, member {name!r} is a link, a device or another special file")
    if suffixes & PICKLES:
        raise ShardwaveError(f"{where}: refused, member {name!r} could run code when it is loaded")
    if size > MAX_MEMBER:
        raise ShardwaveError(f"{where}: refused, {name!r} declares {size} bytes, more than {MAX_MEMBER}")
