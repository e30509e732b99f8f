"""Download of one file over HTTP with progress, resume, retries with increasing pauses, and checksum."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from shardwave.common import typed
from shardwave.common.errors import DamagedFile, ShardwaveError, UsageError
from shardwave.common.progress import bar
from shardwave.common.redact import mask_url
from shardwave.shards.format.records import DownloadRecord
from shardwave.shards.storage import atomic
from shardwave.shards.storage.retry import STATUSES, TryLater, retry

CHUNK = 1 << 18  # bytes


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    *,
    attempts: int = 6,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> Path:
    """Download a file; `target` is created only when the file is complete and its checksum is correct.

    Incomplete data is kept in `.{name}.part`. The next attempt or the next run continues it if the server
    still has the same file.

    Args:
        url: Address, http:// or https://.
        target: The file to create.
        sha256: Expected checksum in hexadecimal; None skips the check.
        attempts: Number of consecutive failures without a new byte after which the download fails.
        timeout: Timeout of the connection and of each read, in seconds.
        pause: Pause after the first failure, in seconds; doubled after each further failure.

    Returns:
        `target`.

    Raises:
        UsageError: `url` is neither http:// nor https://.
        ShardwaveError: The server refuses the request, all attempts have failed, another run is downloading
            the file, the disk is full, or the checksum is wrong.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url must begin with http:// or https://, got {url}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardwaveError(
                f"{part}: another run is downloading into this folder; wait for it or choose another --out"
            ) from None

        def attempt() -> bool:
            """Return whether the file is complete; raises TryLater if no byte was received."""
            before = part.stat().st_size
            try:
                _attempt(url, file, part, timeout)
            except TryLater:
                if attempts > 1 and part.stat().st_size > before:
                    return False
                raise
            return True

        remedy = "; run the command again to continue, or download the file by hand and use --from"
        while not retry(
            mask_url(url),
            attempt,
            lambda error: isinstance(error, TryLater),
            retries=attempts - 1,
            pause=pause,
            remedy=remedy,
        ):
            time.sleep(pause)  # bytes were received: the count of attempts restarts
        file.flush()
        os.fsync(file.fileno())
    if sha256 is not None:
        check(part, sha256, url)
    _validator(part).unlink(missing_ok=True)
    atomic.replace(part, target)
    return target


def check(path: Path, sha256: str, url: str) -> None:
    """Compare a downloaded file with its published checksum; a file with a wrong checksum is removed.

    Args:
        path: The file.
        sha256: Expected checksum in hexadecimal.
        url: Address of the file, for the message.

    Raises:
        ShardwaveError: The checksum is wrong.
    """
    actual = digest(path)
    if actual != sha256.lower():
        path.unlink()
        _validator(path).unlink(missing_ok=True)
        raise ShardwaveError(
            f"{url}: wrong checksum, expected sha256 {sha256.lower()}, got {actual}; "
            "the file was removed: run the command again or give a mirror with --url"
        )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    sha = hashlib.sha256()
    with (
        open(path, "rb") as file,
        progress(path.stat().st_size, f"checking {path.name.strip('.')}") as progress_bar,
    ):
        while chunk := file.read(1 << 22):
            sha.update(chunk)
            progress_bar.update(len(chunk))
    return sha.hexdigest()


def progress(total: int | None, description: str, start: int = 0) -> Any:
    """Return a progress bar in bytes, with rate and remaining time, that appears after one second.

    Args:
        total: Size in bytes; None if unknown.
        description: Text before the bar.
        start: Bytes that are already complete.

    Returns:
        A `tqdm` bar.
    """
    return bar(
        total=total, initial=start, desc=description, unit="B", unit_scale=True, delay=1.0, leave=False
    )


def _attempt(url: str, file: BinaryIO, part: Path, timeout: float) -> None:
    """Append the missing bytes to `part` over one connection; raises TryLater if some are still missing."""
    size = part.stat().st_size
    known = _read_validator(part) if size else None
    validator = known["validator"] if known is not None and known["url"] == mask_url(url) else None
    if size and not validator:
        size = _restart(file)  # the part belongs to another file, or this cannot be excluded
    request = urllib.request.Request(url, headers={"User-Agent": "shardwave"})
    if size and validator:
        request.add_header("Range", f"bytes={size}-")
        request.add_header("If-Range", validator)
    with _errors(url), urllib.request.urlopen(request, timeout=timeout) as response:
        start, total = _extent(response)
        if size and (start != size or (known is not None and known["total"] not in (None, total))):
            size = _restart(file)  # the server sends the whole file, or another file
            if start != 0:
                raise TryLater("the server's file has changed")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - size > free:
            raise ShardwaveError(
                f"{part.parent}: {(total - size) / 1e6:.0f} MB remain to be downloaded, {free / 1e6:.0f} "
                "MB are free; free disk space or choose another --out"
            )
        atomic.write_json(
            _validator(part), {"url": mask_url(url), "validator": _identity(response), "total": total}
        )
        with progress(total, part.name.removeprefix(".").removesuffix(".part"), size) as progress_bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                file.flush()
                size += len(chunk)
                progress_bar.update(len(chunk))
    if total is not None and size < total:
        raise TryLater(f"the connection was cut after {size / 1e6:.1f} of {total / 1e6:.1f} MB")


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    """Convert errors of a request to TryLater (another attempt may succeed) or ShardwaveError (final)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code == 416:  # range not satisfiable: the part is longer than the file
            raise TryLater("the server's file has changed") from None
        if error.code in STATUSES:
            raise TryLater(
                f"the server answered {error.code} {error.reason}", error.headers.get("Retry-After")
            ) from None
        raise ShardwaveError(
            f"{url}: the server answered {error.code} {error.reason}; "
            "give a mirror with --url, or download the file by hand and use --from"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ShardwaveError(
                f"{url}: the server's certificate is not trusted ({error.reason.verify_message}); "
                "give a mirror with --url, or download the file by hand and use --from"
            ) from None
        raise TryLater(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
        raise TryLater(f"the connection broke ({error or type(error).__name__})") from None
    except OSError as error:
        raise ShardwaveError(
            f"{url}: {error.strerror or error} while writing; free disk space or choose another --out"
        ) from None


def _extent(response: Any) -> tuple[int, int | None]:
    """Return the position of the first byte of a response and the total size of the file (None: unknown)."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    extent = response.headers.get("Content-Range", "")  # bytes 500-999/1000
    first, _, total = extent.removeprefix("bytes ").partition("/")
    start = first.split("-")[0]
    return (int(start) if start.isdigit() else -1), (int(total) if total.isdigit() else None)


def _identity(response: Any) -> str | None:
    """Return the identity of the file's version: the strong ETag, or else the date; None without either."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _restart(file: BinaryIO) -> int:
    file.truncate(0)
    return 0


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_validator(part: Path) -> DownloadRecord | None:
    try:
        return typed.read(_validator(part), DownloadRecord)
    except (OSError, DamagedFile):  # without a readable validator the download restarts
        return None
