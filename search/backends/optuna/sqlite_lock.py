"""Lock of a SQLite database, so that only one search uses it at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from shardwave.common.errors import ShardwaveError


def database_file(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for other databases and for a database in memory."""
    if not url.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        name = make_url(url).database or ""
    except ArgumentError:
        return None  # opening the storage raises an error with the reason
    if name.startswith("file:"):  # SQLite's own URI
        name = urllib.parse.unquote(urllib.parse.urlsplit(name).path)
    return None if name in ("", ":memory:") else Path(name)


@contextlib.contextmanager
def only_search_on(url: str | None) -> Iterator[None]:
    """Lock a SQLite database for this search. Other storages are not locked.

    The lock is `flock` on the database file: it is valid for links to the file too, and ends with the
    process. It does not conflict with SQLite's own locks, which use `fcntl`.

    Args:
        url: URL of a storage, or None.

    Yields:
        None.

    Raises:
        ShardwaveError: If another search uses the database, or the file cannot be opened or locked, or
            contains another database.
    """
    path = database_file(url or "")
    if path is None:
        yield
        return
    try:
        descriptor = _open(path)
    except OSError as error:
        raise ShardwaveError(
            f"--storage {url}: unable to open database file {path}: {error.strerror}"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardwaveError(
                f"--storage {url}: another search is using this SQLite database, which supports one only: "
                "wait until it has ended, or use journal:PATH, postgresql://, mysql:// or grpc://HOST:PORT "
                "for both"
            ) from None
        except OSError as error:
            raise ShardwaveError(
                f"--storage {url}: {path} cannot be locked, which SQLite needs ({error.strerror}): use "
                "journal:PATH"
            ) from None
        _check_content(url or "", path)
        yield
    finally:
        os.close(descriptor)


def _check_content(url: str, path: Path) -> None:
    """Raise ShardwaveError if the file is no database of Optuna, which adds its tables to any database."""
    if path.stat().st_size == 0:
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True, timeout=60)
        ) as database:
            tables = {
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except sqlite3.DatabaseError as error:
        raise ShardwaveError(
            f"--storage {url}: {path} cannot be read as a SQLite database: {error}"
        ) from None
    if tables and "studies" not in tables:
        raise ShardwaveError(
            f"--storage {url}: {path} is a database without Optuna studies: use another file"
        )


def _open(path: Path) -> int:
    """Open or create the file; SQLite accepts an empty file."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
