"""One file over HTTP: progress, resume from where it stopped, retries with growing pauses, checksum."""

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
    url: str, target: Path, sha256: str | None = None, *, attempts: int = 6, timeout: float = 30.0, pause: float = 1.0
) -> Path:
    """Fetch `url` into `target`, which appears only when complete and, where `sha256` is given, right.

    What arrived lies in `.{name}.part` and is continued by the next attempt or the next run, if the server still has the same
    file. `attempts` counts failures in a row without a new byte; between them it waits `pause` seconds, doubled each time.
    Raises ShardwaveError when the server refuses, the attempts are used up, the disk is full or the checksum is wrong.
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
            """Whether the file is complete; raises TryLater where not a byte came."""
            before = part.stat().st_size
            try:
                _attempt(url, file, part, timeout)
            except TryLater:
                if attempts > 1 and part.stat().st_size > before:
                    return False
                raise
            return True

        remedy = "; run the command again to go on, or get the file by hand and use --from"
        while not retry(mask_url(url), attempt, lambda error: isinstance(error, TryLater), retries=attempts - 1, pause=pause,
                        remedy=remedy):  # fmt: skip
            time.sleep(pause)  # some bytes came: the attempts are counted anew
        file.flush()
        os.fsync(file.fileno())
    if sha256 is not None:
        check(part, sha256, url)
    _validator(part).unlink(missing_ok=True)
    atomic.replace(part, target)
    return target


def check(path: Path, sha256: str, url: str) -> None:
    """Compare a finished download with its published checksum; a wrong one is removed, so that the next run starts anew."""
    found = digest(path)
    if found != sha256.lower():
        path.unlink()
        _validator(path).unlink(missing_ok=True)
        raise ShardwaveError(
            f"{url}: wrong checksum, expected sha256 {sha256.lower()}, got {found}; "
            "the file was removed: try again or name a mirror with --url"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with open(path, "rb") as file, progress(path.stat().st_size, f"checking {path.name.strip('.')}") as shown:
        while chunk := file.read(1 << 22):
            sha.update(chunk)
            shown.update(len(chunk))
    return sha.hexdigest()


def progress(total: int | None, what: str, start: int = 0) -> Any:
    """A progress bar in bytes with rate and time left, shown after a second."""
    return bar(total=total, initial=start, desc=what, unit="B", unit_scale=True, delay=1.0, leave=False)


def _attempt(url: str, file: BinaryIO, part: Path, timeout: float) -> None:
    """One connection: append to `part` what is missing. Returns when the file is complete, raises TryLater when it is not."""
    have = part.stat().st_size
    known = _read_validator(part) if have else {}
    if have and (known.get("url") != mask_url(url) or not known.get("validator")):
        have = _restart(file)  # another file's beginning, or nothing to tell whether it is
    request = urllib.request.Request(url, headers={"User-Agent": "shardwave"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known["validator"])
    with _errors(url), urllib.request.urlopen(request, timeout=timeout) as response:
        start, total = _extent(response)
        if have and (start != have or (known.get("total") is not None and total != known["total"])):
            have = _restart(file)  # the server sends the whole file, or another one
            if start != 0:
                raise TryLater("the server's file has changed")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise ShardwaveError(
                f"{part.parent}: {(total - have) / 1e6:.0f} MB are to come, {free / 1e6:.0f} MB are free; "
                "make room or choose another --out"
            )
        atomic.write_json(_validator(part), {"url": mask_url(url), "validator": _identity(response), "total": total})
        with progress(total, part.name.removeprefix(".").removesuffix(".part"), have) as shown:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                file.flush()
                have += len(chunk)
                shown.update(len(chunk))
    if total is not None and have < total:
        raise TryLater(f"the connection was cut after {have / 1e6:.1f} of {total / 1e6:.1f} MB")


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    """Sort what may go wrong on the way into ShardwaveError (final) and TryLater (worth another attempt)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left at that place: the part is longer than the file
            raise TryLater("the server's file has changed") from None
        if error.code in STATUSES:
            raise TryLater(f"the server answered {error.code} {error.reason}", error.headers.get("Retry-After")) from None
        raise ShardwaveError(
            f"{url}: the server answered {error.code} {error.reason}; "
            "name a mirror with --url, or get the file by hand and use --from"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ShardwaveError(f"{url}: the server's certificate is not trusted ({error.reason.verify_message})") from None
        raise TryLater(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
        raise TryLater(f"the connection broke ({error or type(error).__name__})") from None
    except OSError as error:
        raise ShardwaveError(f"{url}: {error.strerror or error} while writing; make room or choose another --out") from None


def _extent(response: Any) -> tuple[int, int | None]:
    """(first byte, total size) of what the server is about to send; the size is None where it does not say."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    extent = response.headers.get("Content-Range", "")  # bytes 500-999/1000
    first, _, total = extent.removeprefix("bytes ").partition("/")
    start = first.split("-")[0]
    return (int(start) if start.isdigit() else -1), (int(total) if total.isdigit() else None)


def _identity(response: Any) -> str | None:
    """What tells this file from a later one at the same address: a strong ETag, or the date."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _restart(file: BinaryIO) -> int:
    file.truncate(0)
    return 0


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_validator(part: Path) -> dict[str, Any]:
    try:
        return dict(typed.read(_validator(part), DownloadRecord))
    except (OSError, DamagedFile):  # the download begins anew
        return {}
