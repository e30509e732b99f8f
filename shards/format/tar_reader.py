"""Read uncompressed tar streams from untrusted sources.

Only regular files of a bounded size with relative names are accepted, and no file types that can run code
when they are loaded. Nothing is unpacked to disk or executed.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from shardwave.common.errors import ShardwaveError

MAX_MEMBER = 256 << 20  # bytes
MAX_NAME = 64 << 10  # bytes of an extended header
PICKLES = frozenset({"pickle", "pkl", "pyd", "pth", "pt", "ckpt", "joblib", "dill", "pyc", "py"})
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_CHUNK = 1 << 18  # minimum number of bytes of a read
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int  # position of the data in the tar, in bytes
    data: bytes


class _RefusedMember(Exception):
    """A member was refused. No `tarfile` error: `tarfile` ignores its own errors at the end of an archive."""


class _BoundedTarInfo(tarfile.TarInfo):
    """A tar header whose size is checked before its data are read."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _BoundedTarInfo:
        """Parse a header; raises _RefusedMember if its data are too large."""
        info = super().frombuf(buf, encoding, errors)
        limit = MAX_NAME if info.type in _EXTENDED else MAX_MEMBER
        if not 0 <= info.size <= limit:
            raise _RefusedMember(f"{info.name!r} declares {info.size} bytes, more than {limit}")
        return info


class _ForwardFile:
    """A stream as a file for `tarfile`. It seeks forward only; reads are short only at the end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = memoryview(b"")
        self._position = 0
        self.tail = b""  # the last bytes that were read, up to a block

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError(f"cannot seek back from byte {self._position} to {position}")
        while self._position < position and self.read(min(position - self._position, _CHUNK)):
            pass

    def read(self, size: int) -> bytes:
        parts = [self._buffer[:size]]
        self._buffer = self._buffer[size:]
        missing = size - len(parts[0])
        while missing:
            chunk = memoryview(self._stream.read(max(missing, _CHUNK)))
            if not chunk:
                break
            parts.append(chunk[:missing])
            self._buffer = chunk[missing:]
            missing -= len(parts[-1])
        data = b"".join(parts)
        self._position += len(data)
        self.tail = (self.tail + data)[-512:] if len(data) < 512 else data[-512:]
        return data


def members(stream: IO[bytes], where: str) -> Iterator[Member]:
    """Yield the regular files of an uncompressed tar, in order.

    Args:
        stream: The tar; only its method `read` is used.
        where: Name of the tar for messages.

    Raises:
        ShardwaveError: A member is refused (see `check`), or the tar is damaged or truncated.
    """
    forward = _ForwardFile(stream)
    try:
        with tarfile.open(fileobj=forward, mode="r:", tarinfo=_BoundedTarInfo) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                check(info.name, info.type, info.size, where)
                archive.members = []  # otherwise it keeps every header in memory
                if info.isdir():
                    continue
                forward.seek(info.offset_data)
                data = forward.read(info.size)
                if len(data) != info.size:
                    raise ShardwaveError(f"{where}: truncated in {info.name}")
                yield Member(info.name, info.offset_data, data)
        while forward.read(_CHUNK):
            pass
    except _RefusedMember as refusal:
        raise ShardwaveError(f"{where}: refused, {refusal}") from None
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise ShardwaveError(f"{where}: truncated or not a plain tar file ({error})") from None
    if forward.tell() % 512 or forward.tail.strip(b"\0"):
        raise ShardwaveError(f"{where}: truncated (the end mark of the tar is missing)")


def check(name: str, kind: bytes, size: int, where: str) -> None:
    """Check the header of a tar member.

    Args:
        name: Name of the member.
        kind: Type flag of the tar header.
        size: Declared size in bytes.
        where: Name of the tar for messages.

    Raises:
        ShardwaveError: The member is not a plain file or folder, its name points outside the tar, its type
            can run code when it is loaded, or it is larger than MAX_MEMBER.
    """
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
