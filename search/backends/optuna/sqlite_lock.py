"""One search at a time on one SQLite database: with several, some failed or waited for ever."""

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
    """The file of a SQLite URL; None for other databases and for one in memory."""
    if not url.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        name = make_url(url).database or ""
    except ArgumentError:
        return None  # it is refused with its reason when it is opened
    if name.startswith("file:"):  # SQLite's own URI
        name = urllib.parse.unquote(urllib.parse.urlsplit(name).path)
    return None if name in ("", ":memory:") else Path(name)


@contextlib.contextmanager
def only_search_on(url: str | None) -> Iterator[None]:
    """Hold the SQLite database that `url` names, however it is spelled; a killed holder's lock is free.

    The lock is `flock` on the database file itself, so that links and other spellings of its path meet the same lock; SQLite
    uses another kind (`fcntl`), which it does not meet. Other storages are not locked.

    Raises:
        ShardwaveError: Another search holds it, or the file cannot be opened.
    """
    path = database_file(url or "")
    if path is None:
        yield
        return
    try:
        descriptor = _open(path)
    except OSError as error:
        raise ShardwaveError(f"--storage {url}: unable to open database file {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardwaveError(
                f"--storage {url}: another search is using this SQLite database, which serves one at a time: wait until it has "
                "ended, or give both journal:PATH, postgresql://, mysql:// or grpc://HOST:PORT"
            ) from None
        except OSError as error:
            raise ShardwaveError(
                f"--storage {url}: {path} cannot be locked, which SQLite needs ({error.strerror}): use journal:PATH"
            ) from None
        _check_content(url or "", path)
        yield
    finally:
        os.close(descriptor)


def _check_content(url: str, path: Path) -> None:
    """Raise ShardwaveError for a file that holds something else: Optuna would add its tables to any database."""
    if path.stat().st_size == 0:
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True, timeout=60)
        ) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise ShardwaveError(f"--storage {url}: {path} cannot be read as a SQLite database: {error}") from None
    if tables and "studies" not in tables:
        raise ShardwaveError(f"--storage {url}: {path} is a database of something else, without studies: name another file")


def _open(path: Path) -> int:
    """A new, empty file is a valid database."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
