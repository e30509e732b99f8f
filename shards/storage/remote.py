"""Opens files wherever they are, to be read once from front to back; a transfer that breaks goes on where it stopped."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from shardwave.common import regular_file
from shardwave.common.errors import ShardwaveError
from shardwave.shards.storage.any_path import ObjectFile, as_path
from shardwave.shards.storage.retry import RETRIES, STATUSES, TryLater, retry

_FAILURES = (OSError, http.client.HTTPException, EOFError, TryLater)  # URLError and timeouts are OSErrors
LARGEST = 1 << 30  # bytes that `read_url` accepts
_BLOCK = 32 << 20  # bytes fetched from an object store at a time


class HttpStream:
    """Reads the bytes of `url` exactly once and in order, over as many connections as it takes.

    `retries` failures in a row without a single byte end it with ShardwaveError.
    """

    def __init__(self, url: str, *, timeout: float = 30.0, retries: int = RETRIES):
        self.url = url
        self._timeout, self._retries = timeout, retries
        self._position = 0
        self._response: IO[bytes] | None = None
        self._total: int | None = None  # bytes, where the server says
        self._version: str | None = None  # changes when the content does

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all that is left by default), b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        return retry(self.url, lambda: self._read(size), lambda error: isinstance(error, _FAILURES), retries=self._retries)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _read(self, size: int) -> bytes:
        try:
            if self._response is None:
                self._response = self._connect()
            data = self._response.read(size)
            if not data and self._total is not None and self._position < self._total:
                raise EOFError(f"cut off after {self._position} of {self._total} bytes")
        except _FAILURES:
            self.close()
            raise
        self._position += len(data)
        return data

    def _connect(self) -> IO[bytes]:
        """A connection that goes on at the position."""
        start = self._position
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            response = urllib.request.urlopen(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in STATUSES:
                    raise TryLater(f"status {error.code}", error.headers.get("Retry-After")) from None
                raise ShardwaveError(f"{self.url}: the server answers {error.code} {error.reason}") from None
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        partial = response.status == 206
        length = (
            response.headers.get("Content-Range", "").rsplit("/", 1)[-1] if partial else response.headers.get("Content-Length")
        )
        total = int(length) if length and length.isdigit() else None
        if start and (version, total) != (self._version, self._total):
            response.close()
            raise ShardwaveError(f"{self.url}: changed while it was being read")
        self._version, self._total = version, total
        while start > 0 and not partial:  # the server does not know ranges and begins anew
            skipped = response.read(min(start, 1 << 20))
            if not skipped:
                raise EOFError("cut off before the place to go on from")
            start -= len(skipped)
        return response


def read_url(url: str, **options: Any) -> bytes:
    """Return the content of a manifest or a list of files; `options` are those of `open_url`."""
    with contextlib.closing(open_url(url, **options)) as source:
        data = bytearray()
        while part := source.read(1 << 20):
            data += part
            if len(data) > LARGEST:
                raise ShardwaveError(f"{url}: larger than {LARGEST >> 20} MiB, which no such file is")
        return bytes(data)


def open_url(url: str, *, timeout: float = 30.0, retries: int = RETRIES, commands: bool = False) -> Any:
    """Open a file for reading once, from front to back.

    Args:
        url: a path, or a URL with one of `layout.SCHEMES`.
        timeout: seconds without a byte after which an HTTP connection counts as stalled.
        retries: failures in a row after which an HTTP transfer is given up.
        commands: whether `pipe:COMMAND` may be given, which runs COMMAND; only for what the program's own code names.

    Returns:
        A stream with `read` and `close`.

    Raises:
        UsageError: the scheme is not allowed, or its package is not there.
        ShardwaveError: the file cannot be opened.
    """
    if commands and url.startswith("pipe:"):
        import webdataset

        return webdataset.gopen(url, "rb", bufsize=1 << 20)
    if url.lower().startswith(("http://", "https://")):
        return HttpStream(url, timeout=timeout, retries=retries)
    path = as_path(url)
    try:
        return ObjectFile(path, _BLOCK, 1) if not isinstance(path, Path) else open(path, "rb", opener=regular_file.opener)
    except FileNotFoundError as error:
        raise ShardwaveError(f"{url} does not exist" if not isinstance(path, Path) else f"{url}: {error.strerror}") from None
    except OSError as error:
        raise ShardwaveError(f"{url}: {error.strerror or error}") from None
