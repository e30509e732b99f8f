"""An object in a store, for libraries that want a file to seek about in."""

from __future__ import annotations

import functools
import io
from typing import Any

from shards.url_path import UrlPath


class Ranged(io.RawIOBase):
    """An object's bytes for a library that seeks about in a file, read in blocks.

    Such libraries may swallow what is raised while they read: `check` raises it again.
    """

    BLOCK = 1 << 14

    def __init__(self, path: UrlPath):
        self._path, self._size, self._position = path, path.stat().st_size, 0
        self._error: Exception | None = None
        self._block = functools.lru_cache(64)(lambda i: path.range(i, min(i + self.BLOCK, self._size)))

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, (0, self._position, self._size)[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As much as there is: who calls may take less for the end."""
        start = self._position
        end = max(start, min(start + len(buffer), self._size))
        try:
            while self._position < end:
                at = self._position % self.BLOCK
                data = self._block(self._position - at)[at : at + end - self._position]
                buffer[self._position - start : self._position - start + len(data)] = data
                self._position += len(data)
        except Exception as error:
            self._error = error
            raise
        return end - start

    def check(self) -> None:
        """Raise what a read raised."""
        if self._error is not None:
            raise self._error
