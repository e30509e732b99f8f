"""Write a tar file sequentially, with preformatted USTAR headers, and compute its BLAKE3 digest.

Format: POSIX.1-1988 USTAR, 512-byte blocks (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import functools
from pathlib import Path

from blake3 import blake3

_ZEROS = bytes(1024)
_LONG = 1 << 16  # bytes; shorter data are buffered, longer data are written without a copy


class TarWriter:
    """Writes the members of a tar file one after another; `close` completes it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0  # bytes
        self._hash = blake3()
        self._file = open(path, "wb", buffering=_LONG)  # noqa: SIM115
        self._buffer = bytearray()

    def add(self, name: str, data: bytes | memoryview, head: bytes = b"") -> tuple[int, int]:
        """Append a member.

        Args:
            name: Name of the member, ASCII, at most 99 bytes.
            data: Content, as flat bytes.
            head: Short content before `data`.

        Returns:
            Position in the tar and length of the content (`head` and `data`), in bytes.

        Raises:
            ValueError: The name is too long, or the content has 8 GiB or more.
        """
        length = len(head) + len(data)
        self._buffer += _header(name, length) + head
        if len(data) < _LONG:
            self._buffer += data
        else:
            self._write_buffer()
            self._write(data)
        self._buffer += _ZEROS[: -length % 512]
        if len(self._buffer) >= _LONG:
            self._write_buffer()
        offset = self.position + 512
        self.position = offset + -(-length // 512) * 512
        return offset, length

    def close(self) -> tuple[int, str]:
        """Write the end mark and close the file; returns (size in bytes, BLAKE3 digest)."""
        self._buffer += _ZEROS
        self.position += len(_ZEROS)
        self._write_buffer()
        self._file.close()
        return self.position, self._hash.hexdigest()

    def abandon(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write_buffer(self) -> None:
        self._write(self._buffer)
        self._buffer = bytearray()

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)


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
