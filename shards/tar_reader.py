"""Reads plain tar streams that may come from anybody: what could leave its folder, run code or fill the memory is refused.

Only regular files pass, with relative names, of a bounded size, and never a pickle: nothing is unpacked to disk or executed.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from preprocess.errors import ShardwaveError

MAX_MEMBER = 256 << 20  # bytes
MAX_NAME = 64 << 10  # bytes, of an extended header
PICKLES = frozenset({"pickle", "pkl", "pyd", "pth", "pt", "ckpt", "joblib", "dill", "pyc", "py"})
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
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


class _Counted:
    """A stream that knows how much was read, and what the last block was."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.position = 0
        self.tail = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.position += len(data)
        self.tail = (self.tail + data)[-512:] if len(data) < 512 else data[-512:]
        return data


def members(stream: IO[bytes], where: str) -> Iterator[Member]:
    """The regular files of an uncompressed tar, in order; `stream` needs `read` only, `where` names it in errors.

    Raises ShardwaveError for a member that is refused, and for a tar that is damaged or ends before its end mark.
    """
    counted = _Counted(stream)
    try:
        with tarfile.open(fileobj=counted, mode="r|", bufsize=1 << 20, tarinfo=_BoundedTarInfo) as archive:  # type: ignore[call-overload]
            for info in archive:
                check(info.name, info.type, info.size, where)
                if info.isdir():
                    continue
                file = archive.extractfile(info)
                assert file is not None  # `check` lets regular files and folders through only
                data = file.read()
                if len(data) != info.size:
                    raise ShardwaveError(f"{where}: truncated in {info.name}")
                yield Member(info.name, info.offset_data, data)
                archive.members = []  # it would keep every header
        while counted.read(1 << 20):
            pass
    except _Refused as refusal:
        raise ShardwaveError(f"{where}: refused, {refusal}") from None
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise ShardwaveError(f"{where}: truncated or not a plain tar file ({error})") from None
    if counted.position % 512 or counted.tail.strip(b"\0"):
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
