"""A tar file written straight through: preformatted USTAR headers with fixed times, BLAKE3 digest as it grows.

Format: POSIX.1-1988 USTAR, 512-byte blocks (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import functools
from pathlib import Path

from blake3 import blake3

_ZEROS = bytes(1024)
_LONG = 1 << 16  # bytes; what is shorter is gathered, what is longer goes to the file uncopied


class TarWriter:
    """Writes members one after another to `path`; `close` ends the archive and syncs it to disk."""

    def __init__(self, path: Path):
        self.path = path
        self.position = 0  # bytes
        self._hash = blake3()
        self._file = open(path, "wb", buffering=_LONG)  # noqa: SIM115
        self._gathered = bytearray()

    def add(self, name: str, data: bytes | memoryview, head: bytes = b"") -> tuple[int, int]:
        """Append a member of `head` (short) and `data` (flat bytes); returns the (offset, length) of both together."""
        length = len(head) + len(data)
        self._gathered += _header(name, length) + head
        if len(data) < _LONG:
            self._gathered += data
        else:
            self._write_gathered()
            self._write(data)
        self._gathered += _ZEROS[: -length % 512]
        if len(self._gathered) >= _LONG:
            self._write_gathered()
        offset = self.position + 512
        self.position = offset + -(-length // 512) * 512
        return offset, length

    def close(self) -> tuple[int, str]:
        """End the archive; returns its (bytes, digest)."""
        self._gathered += _ZEROS
        self.position += len(_ZEROS)
        self._write_gathered()
        self._file.close()
        return self.position, self._hash.hexdigest()

    def abandon(self) -> None:
        """Remove what was written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write_gathered(self) -> None:
        self._write(self._gathered)
        self._gathered = bytearray()

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
    """The header's bytes from 100 on, before and after the checksum, and the sum of all but the name (checksum as spaces)."""
    if size >= 8**11:
        raise ValueError(f"USTAR members hold less than 8 GiB, got {size} bytes")
    start = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    end = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
    return start, end, sum(start) + sum(end) + 8 * ord(" ")
