"""Write a tar file sequentially, with preformatted USTAR headers, and compute its BLAKE3 digest.

Format: POSIX.1-1988 USTAR, 512-byte blocks (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from blake3 import blake3

_ZEROS = bytes(1024)
_LONG = 1 << 16  # bytes; shorter data are collected over several flushes
_MOST = 1 << 24  # bytes that wait for a flush


class TarWriter:
    """Writes the members of a tar file one after another; `close` completes it.

    Members are written by `flush`, together: each write and each update of the digest hands the interpreter
    lock to other threads, and waits to get it back.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0  # bytes, with those that wait for a flush
        self._written = 0
        self._hash = blake3()
        self._file = open(path, "wb", buffering=_LONG)  # noqa: SIM115
        self._pieces: list[bytes | bytearray | memoryview] = []  # wait for a flush
        self._short = bytearray()  # follows the pieces
        self._joined = np.empty(0, np.uint8)

    def add(self, name: str, data: bytes | memoryview, head: bytes = b"") -> tuple[int, int]:
        """Append a member.

        Args:
            name: Name of the member, ASCII, at most 99 bytes.
            data: Content, as flat bytes; must not change before the next `flush`.
            head: Short content before `data`.

        Returns:
            Position in the tar and length of the content (`head` and `data`), in bytes.

        Raises:
            ValueError: The name is too long, or the content has 8 GiB or more.
        """
        length = len(head) + len(data)
        self._short += _header(name, length) + head
        if len(data) < _LONG:
            self._short += data
        else:
            self._pieces += self._short, data
            self._short = bytearray()
        self._short += _ZEROS[: -length % 512]
        offset = self.position + 512
        self.position = offset + -(-length // 512) * 512
        if self.position - self._written >= _MOST:
            self._write()
        return offset, length

    def flush(self) -> None:
        """Write the members so far with one call and one update of the digest; short ones may wait."""
        if self._pieces or len(self._short) >= _LONG:
            self._write()

    def close(self) -> tuple[int, str]:
        """Write the end mark and close the file; returns (size in bytes, BLAKE3 digest)."""
        self._short += _ZEROS
        self.position += len(_ZEROS)
        self._write()
        self._file.close()
        return self.position, self._hash.hexdigest()

    def abandon(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        data: bytearray | memoryview = self._short
        if self._pieces:
            size = self.position - self._written
            if size > len(self._joined):
                self._joined = np.empty(size, np.uint8)
            pieces = [np.frombuffer(piece, np.uint8) for piece in (*self._pieces, self._short)]
            data = self._joined[:size].data
            np.concatenate(pieces, out=self._joined[:size])  # releases the interpreter lock
        self._file.write(data)
        self._hash.update(data)
        self._pieces, self._short, self._written = [], bytearray(), self.position


def _header(name: str, size: int) -> bytes:
    encoded = name.encode("ascii")
    if len(encoded) > 99:
        raise ValueError(f"member names must stay under 100 bytes, got {name}")
    start, end, total = _template(size)
    return b"".join((encoded.ljust(100, b"\0"), start, b"%06o\0 " % (total + sum(encoded)), end))


@functools.lru_cache(maxsize=4096)
def _template(size: int) -> tuple[bytes, bytes, int]:
    """Return the header from byte 100 on, before and after the checksum, and the checksum without name."""
    if size >= 8**11:
        raise ValueError(f"USTAR members hold less than 8 GiB, got {size} bytes")
    start = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    end = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
    return start, end, sum(start) + sum(end) + 8 * ord(" ")
