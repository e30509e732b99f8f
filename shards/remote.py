"""Opens shards wherever they are; what stalls, is cut off or answers 503 is fetched again from where it stopped."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from preprocess import regular_file
from preprocess.errors import ShardwaveError, UsageError
from shards.layout import check_url, is_url
from shards.url_path import place

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may pass
_FAILURES = (OSError, http.client.HTTPException, EOFError)  # URLError and timeouts are OSErrors


class Opened(NamedTuple):
    """A stream that begins at the byte asked for."""

    stream: IO[bytes]
    total: int | None  # bytes of the whole, where the server says
    version: str | None  # changes when the content does


class _Later(Exception):
    """The server asks to come again, perhaps after so many seconds."""

    def __init__(self, status: int, seconds: float | None):
        super().__init__(f"status {status}")
        self.seconds = seconds


class RetryingStream:
    """Reads the bytes of `url` exactly once and in order, over as many connections as it takes.

    `retries` failures in a row without a single byte end it with ShardwaveError; waits double from `pause` seconds.
    """

    def __init__(self, url: str, opener: Callable[[int], Opened], *, retries: int = 8, pause: float = 0.25):
        self.url = url
        self._opener = opener
        self._retries = retries
        self._pause = pause
        self._position = 0
        self._failures = 0
        self._opened: Opened | None = None
        self._total: int | None = None
        self._version: str | None = None

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all that is left by default), b"" at the end."""
        if size < 0:
            parts = []
            while part := self.read(1 << 20):
                parts.append(part)
            return b"".join(parts)
        while True:
            try:
                data = self._open().stream.read(size)
                if data or self._total is None or self._position >= self._total:
                    self._position += len(data)
                    self._failures = 0
                    return data
                raise EOFError(f"cut off after {self._position} of {self._total} bytes")
            except (*_FAILURES, _Later) as error:
                self.close()
                self._wait(error)

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.stream.close()
            self._opened = None

    def _open(self) -> Opened:
        if self._opened is None:
            opened = self._opener(self._position)
            if self._position and (opened.version != self._version or opened.total != self._total):
                opened.stream.close()
                raise ShardwaveError(f"{self.url}: changed while it was being read")
            self._opened, self._total, self._version = opened, opened.total, opened.version
        return self._opened

    def _wait(self, error: Exception) -> None:
        self._failures += 1
        if self._failures > self._retries:
            raise ShardwaveError(f"{self.url}: given up after {self._retries} retries ({error})") from None
        asked = error.seconds if isinstance(error, _Later) else None
        time.sleep(min(30.0, self._pause * 2 ** (self._failures - 1) if asked is None else asked))


def open_url(url: str, *, timeout: float = 30.0, retries: int = 8, commands: bool = False) -> Any:
    """Open a file for reading once, from front to back.

    Args:
        url: a path, or a URL with one of `layout.SCHEMES`.
        timeout: seconds without a byte after which a connection counts as stalled.
        retries: failures in a row after which it is given up.
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
    if not is_url(url) or check_url(url).lower().startswith("file:"):
        try:
            return open(str(place(url)), "rb", opener=regular_file.opener)
        except OSError as error:
            raise ShardwaveError(f"{url}: {error.strerror or error}") from None
    if url.lower().startswith(("http://", "https://")):
        return RetryingStream(url, lambda start: _open_http(url, start, timeout), retries=retries)
    return RetryingStream(url, lambda start: _open_fsspec(url, start), retries=retries)


def _open_http(url: str, start: int, timeout: float) -> Opened:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in AGAIN:
                after = error.headers.get("Retry-After", "")
                raise _Later(error.code, float(after) if after.isdigit() else None) from None
            raise ShardwaveError(f"{url}: the server answers {error.code} {error.reason}") from None
    version = response.headers.get("ETag") or response.headers.get("Last-Modified")
    length = response.headers.get("Content-Length")
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rsplit("/", 1)[-1]
        return Opened(response, int(total) if total.isdigit() else None, version)
    opened = Opened(response, int(length) if length else None, version)
    while start > 0:  # the server does not know ranges and begins anew
        skipped = response.read(min(start, 1 << 20))
        if not skipped:
            raise EOFError("cut off before the place to go on from")
        start -= len(skipped)
    return opened


def _open_fsspec(url: str, start: int) -> Opened:
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{url}: reading from an object store needs fsspec: pip install 'shardwave[cloud]'") from None
    try:
        file = fsspec.open(url, "rb").open()
    except FileNotFoundError:
        raise ShardwaveError(f"{url} does not exist") from None
    except (ValueError, ImportError) as error:  # an unknown scheme, or one whose package is not there
        raise UsageError(f"{url}: {error}") from None
    except PermissionError as error:
        raise ShardwaveError(f"{url}: access is denied ({error}): check the credentials and their rights") from None
    except Exception as error:  # every store has its own class for this
        if not type(error).__name__.endswith("CredentialsError"):
            raise
        raise ShardwaveError(f"{url}: {error}: give the store's credentials in the environment") from None
    file.seek(start)
    return Opened(file, file.size, None)
