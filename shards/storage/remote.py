"""Open files on disk or at URLs for sequential reading; interrupted transfers are resumed."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from shardwave.common import regular_file
from shardwave.common.errors import ShardwaveError
from shardwave.shards.storage.any_path import ObjectFile, as_path
from shardwave.shards.storage.retry import RETRIES, STATUSES, TryLater, retry

_FAILURES = (OSError, http.client.HTTPException, EOFError, TryLater)  # URLError and timeouts are OSErrors
LARGEST = 1 << 30  # maximum size for `read_url`, in bytes
_BLOCK = 32 << 20  # bytes of a request to an object store


class HttpStream:
    """Reads the content of a URL sequentially, and resumes at the same byte after a failure.

    Args:
        url: The URL.
        timeout: Timeout of a connection that delivers no byte, in seconds.
        retries: Maximum number of consecutive retries without a new byte; then reading raises ShardwaveError.
    """

    def __init__(self, url: str, *, timeout: float = 30.0, retries: int = RETRIES) -> None:
        self.url = url
        self._timeout, self._retries = timeout, retries
        self._position = 0
        self._response: http.client.HTTPResponse | None = None
        self._total: int | None = None  # bytes, if the server reports the size
        self._version: str | None = None  # ETag or Last-Modified header

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes (by default all remaining ones); b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        return retry(
            self.url,
            lambda: self._read(size),
            lambda error: isinstance(error, _FAILURES),
            retries=self._retries,
        )

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

    def _connect(self) -> http.client.HTTPResponse:
        """Open a connection at the current position."""
        start = self._position
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in STATUSES:
                    raise TryLater(f"status {error.code}", error.headers.get("Retry-After")) from None
                raise ShardwaveError(f"{self.url}: the server answers {error.code} {error.reason}") from None
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        partial = response.status == 206
        length = (
            response.headers.get("Content-Range", "").rsplit("/", 1)[-1]
            if partial
            else response.headers.get("Content-Length")
        )
        total = int(length) if length and length.isdigit() else None
        if start and (version, total) != (self._version, self._total):
            response.close()
            raise ShardwaveError(f"{self.url}: changed while it was being read: run the command again")
        self._version, self._total = version, total
        while start > 0 and not partial:  # a server without ranges starts at the first byte
            skipped = response.read(min(start, 1 << 20))
            if not skipped:
                raise EOFError("cut off before the position to resume from")
            start -= len(skipped)
        return response


def read_url(url: str, **options: Any) -> bytes:
    """Return the content of a small file, such as a manifest.

    Args:
        url: Path or URL of the file.
        **options: Keyword arguments of `open_url`.

    Raises:
        UsageError: The URL's scheme is not allowed.
        ShardwaveError: The file cannot be read, or is larger than LARGEST.
    """
    with contextlib.closing(open_url(url, **options)) as source:
        data = bytearray()
        while part := source.read(1 << 20):
            data += part
            if len(data) > LARGEST:
                raise ShardwaveError(f"{url}: larger than {LARGEST >> 20} MiB: not a file of a shard set")
        return bytes(data)


def open_url(url: str, *, timeout: float = 30.0, retries: int = RETRIES, commands: bool = False) -> Any:
    """Open a file for sequential reading.

    Args:
        url: A path, or a URL with one of `layout.SCHEMES`.
        timeout: Timeout of an HTTP connection that delivers no byte, in seconds.
        retries: Maximum number of consecutive retries of an HTTP transfer without a new byte.
        commands: Whether `pipe:COMMAND` is accepted, which runs COMMAND. Do not set it for URLs that were
            read from files.

    Returns:
        A stream with `read` and `close`.

    Raises:
        UsageError: The scheme is not allowed, or the package for it is missing.
        ShardwaveError: The file cannot be opened.
    """
    if commands and url.startswith("pipe:"):
        import webdataset

        return webdataset.gopen(url, "rb", bufsize=1 << 20)
    if url.lower().startswith(("http://", "https://")):
        return HttpStream(url, timeout=timeout, retries=retries)
    path = as_path(url)
    try:
        return (
            ObjectFile(path, _BLOCK, 1)
            if not isinstance(path, Path)
            else open(path, "rb", opener=regular_file.opener)
        )
    except FileNotFoundError as error:
        raise ShardwaveError(
            f"{url} does not exist" if not isinstance(path, Path) else f"{url}: {error.strerror}"
        ) from None
    except OSError as error:
        raise ShardwaveError(f"{url}: {error.strerror or error}") from None
