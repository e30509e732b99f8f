"""A file or a folder at a URL (`s3://bucket/prefix`, `gs://...`), through fsspec, with what builds need of pathlib's interface.

Object stores have no rename, and builds need none there: an object is seen by nobody before all of it has arrived (a PUT, or the
completion of an upload in parts, is one step), which is what a temporary name and a rename achieve on a disk. What answers 503,
stalls or is cut off is done again after growing waits, RETRIES times at most; after writing, size and checksum of what the store
holds are compared with what was sent.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import io
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from preprocess.errors import ShardwaveError, UsageError
from shards.layout import check_url, is_url

if TYPE_CHECKING:
    from shards.ranged import Ranged

T = TypeVar("T")
RETRIES, PAUSE = 8, 0.25  # seconds before the first; doubled for each of the others, up to 30
PART = 50 << 20  # bytes; s3fs uploads larger objects in such parts
DEFECTS = (TypeError, AttributeError, KeyError, NotImplementedError)  # of a program, not of a connection


class Stat(NamedTuple):
    """What a store tells of an object."""

    st_size: int
    st_mtime_ns: int
    version: str  # its ETag, where it has one: changes with the content


class UrlPath:
    """See the module's docstring. `listing`: what lies there, once and for all (see `listed`); without one the store is asked.

    Errors: FileNotFoundError as pathlib has it; ShardwaveError where the store refuses, or goes on failing.
    """

    def __init__(self, url: str, listing: Mapping[str, Stat] | None = None):
        self.url = url.rstrip("/")
        self._listing = listing

    def __reduce__(self) -> tuple[Any, ...]:
        return UrlPath, (self.url,)  # another process asks for itself

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> UrlPath:
        return UrlPath(f"{self.url}/{name}", self._listing)

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The name's extension with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> UrlPath:
        """The folder that it lies in."""
        return UrlPath(self.url.rsplit("/", 1)[0], self._listing)

    def listed(self) -> UrlPath:
        """The same path, everything below it listed in one go: `stat`, `exists`, `glob` and `files` then ask no more."""
        store, key = _store(self.url)
        try:
            found = again(self.url, lambda: store.find(key, detail=True))
        except FileNotFoundError:  # no such bucket
            found = {}
        start = len(key.rstrip("/"))
        return UrlPath(self.url, {self.url + name[start:]: _stat(info) for name, info in found.items() if info["type"] == "file"})

    def stat(self) -> Stat:
        """Size, time of the last change and version of the object; FileNotFoundError where there is none."""
        if self._listing is not None:
            if self.url not in self._listing:
                raise FileNotFoundError(2, "No such object", self.url)
            return self._listing[self.url]
        store, key = _store(self.url)
        info = again(self.url, lambda: store.info(key))
        if info["type"] == "directory":
            raise FileNotFoundError(2, "No such object", self.url)
        return _stat(info)

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether an object lies below it."""
        if self._listing is not None:
            return any(url.startswith(self.url + "/") for url in self._listing)
        store, key = _store(self.url)
        try:
            return again(self.url, lambda: store.info(key))["type"] == "directory"
        except FileNotFoundError:
            return False

    def files(self) -> list[str]:
        """The paths, relative to this one, of all objects below it."""
        listing = self._listing if self._listing is not None else self.listed()._listing or {}
        return [url[len(self.url) + 1 :] for url in listing if url.startswith(self.url + "/") and not url.endswith("/")]

    def iterdir(self) -> Iterator[UrlPath]:
        """The objects that lie directly in this folder."""
        return (self / name for name in self.files() if "/" not in name)

    def glob(self, pattern: str) -> Iterator[UrlPath]:
        """The objects directly in this folder whose names end as `*.suffix` says."""
        return (path for path in self.iterdir() if path.name.endswith(pattern.removeprefix("*")))

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self.range(None, None)

    def head(self, size: int) -> bytes:
        """The object's first bytes."""
        return self.range(0, size)

    def range(self, start: int | None, end: int | None) -> bytes:
        """The object's bytes from `start` to before `end`."""
        store, key = _store(self.url)
        return again(self.url, lambda: store.cat_file(key, start=start, end=end))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def open(self, *, newline: str | None = None, encoding: str = "utf-8") -> io.TextIOWrapper:
        """The whole object, to be read as a text file is."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, newline=newline)

    def ranged(self) -> Ranged:
        """The object as a file that asks the store for no more than is read."""
        from shards.ranged import Ranged

        return Ranged(self)

    def fetch(self, path: Path, size: int) -> None:
        """Copy the object into the file `path`; `size`: the bytes it should have, -1 if not known."""
        store, key = _store(self.url)

        def copy() -> None:
            store.get_file(key, str(path))
            if size >= 0 and path.stat().st_size != size:
                raise OSError(f"{path.stat().st_size} bytes came, not {size}: cut off, or changed since it was listed")

        again(self.url, copy)

    def write(self, data: bytes | Path, *, new: bool = False) -> Stat:
        """Store bytes, or a file; with `new`, FileExistsError where there is such an object already (if the store can tell)."""
        store, key = _store(self.url)
        how = {"mode": "create"} if new else {}

        def send() -> Stat:
            try:
                store.put_file(str(data), key, **how) if isinstance(data, Path) else store.pipe_file(key, data, **how)
            except OSError as error:
                if error.errno != errno.ENOSYS or not how:
                    raise
                how.clear()  # this store cannot tell
                return send()
            stat = _stat(store.info(key))
            if not _arrived(store, key, stat, data):
                raise OSError("what the store holds is not what was sent")
            return stat

        try:
            return again(self.url, send)
        except FileNotFoundError:
            raise ShardwaveError(f"{self.url} cannot be written: is there such a bucket?") from None

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        store, key = _store(self.url)
        with contextlib.suppress(*((FileNotFoundError,) if missing_ok else ())):
            again(self.url, lambda: store.rm_file(key))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a store has no folders but in its objects' names."""

    def rmdir(self) -> None:
        """Nothing, see `mkdir`."""


Place = Path | UrlPath  # where a set or its audio lies


def place(location: Path | str | UrlPath) -> Place:
    """Return a location as a path: `file://` URLs are files of this machine, other URLs are an object store's.

    Raises:
        UsageError: the URL's scheme is not one of `layout.SCHEMES`.
    """
    if not is_url(location):
        return location if isinstance(location, UrlPath) else Path(location)
    parts = urllib.parse.urlsplit(check_url(str(location)))
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme.lower() == "file" else UrlPath(str(location))


def again(url: str, action: Callable[[], T]) -> T:
    """What `action` returns, tried again where it fails as connections and stores do."""
    for failures in range(RETRIES + 1):
        try:
            return action()
        except (FileNotFoundError, FileExistsError, ShardwaveError, *DEFECTS):
            raise
        except PermissionError as error:
            raise ShardwaveError(f"{url}: access is denied ({_line(error)}): check the credentials and their rights") from None
        except Exception as error:  # every store has its own classes for what may pass
            if type(error).__name__.endswith("CredentialsError"):
                raise ShardwaveError(f"{url}: {_line(error)}: give the store's credentials in the environment") from None
            if failures == RETRIES:
                raise ShardwaveError(f"{url}: given up after {RETRIES} retries ({_line(error)})") from None
            time.sleep(min(30.0, PAUSE * 2**failures))
    raise AssertionError("not reached")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _store(url: str) -> tuple[Any, str]:
    """The file system of a URL, and its path there."""
    scheme, _, rest = url.partition("://")
    store = file_system(f"{scheme}://{rest.split('/')[0]}")
    return store, store._strip_protocol(url)


@functools.cache
def file_system(root: str) -> Any:
    """fsspec's file system for all URLs that begin with `root` (scheme and bucket or host), one for all threads.

    UsageError where the scheme is not allowed, or its package is not there.
    """
    check_url(root)
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError(f"{root}: object stores need fsspec: pip install 'shardwave[cloud]'") from None
    try:
        return url_to_fs(root, use_listings_cache=False)[0]
    except (ValueError, ImportError) as error:
        raise UsageError(f"{root}: {_line(error)}") from None


def _stat(info: Mapping[str, Any]) -> Stat:
    changed = next((info[name] for name in ("LastModified", "mtime", "updated") if info.get(name) is not None), 0)
    if isinstance(changed, str):
        changed = datetime.datetime.fromisoformat(changed)
    if isinstance(changed, datetime.datetime):
        changed = changed.timestamp()
    return Stat(int(info["size"] or 0), int(changed * 1e9), str(info.get("ETag") or info.get("etag") or "").strip('"'))


def _arrived(store: Any, key: str, stat: Stat, data: bytes | Path) -> bool:
    """Whether the object is `data`, by its size and its ETag; where that is no MD5 sum, by its bytes."""
    with open(data, "rb") if isinstance(data, Path) else io.BytesIO(data) as file:
        if file.seek(0, 2) != stat.st_size:
            return False
        file.seek(0)
        if "-" in stat.version:
            sums = [hashlib.md5(part, usedforsecurity=False) for part in iter(lambda: file.read(PART), b"")]
            joined = hashlib.md5(b"".join(part.digest() for part in sums), usedforsecurity=False).hexdigest()
            same = stat.version == f"{joined}-{len(sums)}"
        else:
            same = stat.version == hashlib.file_digest(file, _md5).hexdigest()
        if same:
            return True
        file.seek(0)
        with store.open(key, "rb") as stored:
            return hashlib.file_digest(stored, "sha256").digest() == hashlib.file_digest(file, "sha256").digest()


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
