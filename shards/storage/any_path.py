"""Files on this machine and at URLs (`s3://bucket/prefix`, `gs://…`), the latter through universal_pathlib and fsspec.

Objects appear whole, so that writing one needs no temporary name. What a store refuses for a while is tried again (`retry`);
what it goes on refusing is a ShardwaveError of one line.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import io
import os
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from shardwave.common import regular_file
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.format.layout import check_url, is_url
from shardwave.shards.storage.retry import one_line, retry

if TYPE_CHECKING:
    from upath import UPath

T = TypeVar("T")
AnyPath: TypeAlias = "Path | UPath"
_FINAL = (  # of a store's errors and of defects; others may pass
    FileNotFoundError, FileExistsError, PermissionError, ShardwaveError, TypeError, AttributeError, KeyError, NotImplementedError,
)  # fmt: skip


class FileInfo(NamedTuple):
    """Size in bytes, time of the last change, and the store's ETag, which changes with the content ("": it has none)."""

    size: int
    mtime_ns: int
    version: str = ""


def as_path(location: AnyPath | str) -> AnyPath:
    """Return a location as a path: of this machine (also `file://`), or a UPath for other URLs.

    Raises:
        UsageError: the URL's scheme is not one of `layout.SCHEMES`, or its package is missing.
    """
    if not is_url(location):
        return Path(location) if isinstance(location, str | Path) else location
    url = check_url(str(location))
    if url.lower().startswith("file:"):
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    from upath import UPath  # builds of local files do without it

    try:
        path = UPath(url.rstrip("/"), use_listings_cache=False)
        _ = path.fs  # paths below it share the file system
        return path
    except (ValueError, ImportError) as error:
        raise UsageError(f"{url}: {one_line(error)}") from None


def stat(path: AnyPath) -> FileInfo | None:
    """Return what is known of a file; None where there is none."""
    if isinstance(path, Path):
        return _local_info(path) if path.is_file() else None
    info = _info(path)
    return _file_info(info) if info is not None and info["type"] != "directory" else None


def is_dir(path: AnyPath) -> bool:
    """Whether there is such a folder; at a URL, whether a file lies below it."""
    return path.is_dir() if isinstance(path, Path) else (_info(path) or {}).get("type") == "directory"


def exists(path: AnyPath) -> bool:
    """Whether there is such a file or folder."""
    return path.exists() if isinstance(path, Path) else _info(path) is not None


def make_folder(folder: AnyPath) -> None:
    """Make a folder where it is missing; at URLs there are none but in the names of objects."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def names(folder: AnyPath) -> list[str]:
    """Return the names of what lies directly in a folder; none where there is no such folder."""
    if isinstance(folder, Path):
        return os.listdir(folder) if folder.is_dir() else []
    return sorted({name.split("/")[0] for name in list_files(folder)})


def list_files(folder: UPath) -> dict[str, FileInfo]:
    """Return every file below a URL, by its path relative to it."""
    try:
        found = _request(folder, lambda: folder.fs.find(_key(folder), detail=True))
    except FileNotFoundError:  # no such bucket
        return {}
    files = {name[len(_key(folder)) + 1 :]: info for name, info in found.items() if info["type"] == "file"}
    return {name: _file_info(info) for name, info in files.items() if name and not name.endswith("/")}


def stats(folder: AnyPath, files: Iterable[str]) -> Iterator[FileInfo | None]:
    """Yield what is known of each file, named relative to `folder`; a URL is listed once."""
    return map(list_files(folder).get if not isinstance(folder, Path) else lambda name: _local_info(f"{folder}/{name}"), files)


def read_bytes(path: AnyPath, start: int | None = None, end: int | None = None) -> bytes:
    """Return the content of a regular file, or of one at a URL the bytes from `start` to before `end`.

    Raises:
        OSError: it is missing, or not readable.
    """
    if isinstance(path, Path):
        return regular_file.read_bytes(path)
    return _request(path, lambda: path.fs.cat_file(_key(path), start=start, end=end))


def read_many(folder: UPath, files: Sequence[str]) -> list[bytes | None]:
    """Return the contents of files below a URL, fetched together; None for those that could not be read at once."""
    found = folder.fs.cat_ranges([f"{_key(folder)}/{name}" for name in files], None, None, on_error="return")
    return [data if isinstance(data, bytes) else None for data in found]


def fetch(path: UPath, target: Path, size: int) -> None:
    """Copy a file at a URL to `target`; `size`: the bytes it should have, -1 if not known."""

    def copy() -> None:
        path.fs.get_file(_key(path), str(target))
        if size >= 0 and target.stat().st_size != size:
            raise OSError(f"{target.stat().st_size} bytes came, not {size}: cut off, or changed since it was listed")

    _request(path, copy)


def write(path: UPath, data: bytes | Path, *, new: bool = False) -> FileInfo:
    """Store bytes, or a copy of a file, at a URL; with `new`, FileExistsError where there is such an object already."""
    size = data.stat().st_size if isinstance(data, Path) else len(data)

    def send() -> FileInfo:
        if isinstance(data, Path):
            path.fs.put_file(str(data), _key(path))
        else:
            path.fs.pipe_file(_key(path), data, mode="create" if new else "overwrite")
        info = _file_info(path.fs.info(_key(path)))
        if info.size != size:
            raise OSError(f"the store holds {info.size} bytes, not the {size} that were sent")
        return info

    try:
        return _request(path, send)
    except FileNotFoundError:
        raise ShardwaveError(f"{path} cannot be written: is there such a bucket?") from None


def remove(folder: AnyPath, files: Iterable[str]) -> None:
    """Remove files of a folder, where they are there; at a URL many at a time."""

    def unlink(name: str) -> None:
        path = folder / name
        with contextlib.suppress(FileNotFoundError):
            path.unlink() if isinstance(path, Path) else _request(path, lambda: path.fs.rm_file(_key(path)))

    with ThreadPoolExecutor(1 if isinstance(folder, Path) else 16, "remove") as pool:
        list(pool.map(unlink, files))


class ObjectFile(io.RawIOBase):
    """A file at a URL for what reads and seeks, fetched in blocks of `block` bytes, of which `kept` stay in memory.

    Libraries may hide what is raised while they read: `error` holds it.
    """

    def __init__(self, path: UPath, block: int = 1 << 14, kept: int = 64):
        super().__init__()
        info = stat(path)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "No such object", str(path))
        self.error: Exception | None = None
        self._size, self._position, self._block = info.size, 0, block
        self._read = functools.lru_cache(kept)(lambda start: read_bytes(path, start, min(start + block, info.size)))

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
        """Fill the buffer as far as the file goes: callers may take less for its end."""
        filled, wanted = 0, min(len(buffer), max(0, self._size - self._position))
        try:
            while filled < wanted:
                start, within = self._position - self._position % self._block, self._position % self._block
                data = self._read(start)[within : within + wanted - filled]
                if not data:
                    raise ShardwaveError("a file at a URL has become shorter while it was being read")
                buffer[filled : filled + len(data)] = data
                filled, self._position = filled + len(data), self._position + len(data)
        except Exception as error:
            self.error = error
            raise
        return filled


def _info(path: UPath) -> Mapping[str, Any] | None:
    try:
        return _request(path, lambda: path.fs.info(_key(path)))
    except FileNotFoundError:
        return None


def _request(path: UPath, action: Callable[[], T]) -> T:
    """Return what `action` returns, tried again where it fails as connections and stores do."""

    def no_credentials(error: BaseException) -> bool:
        return type(error).__name__.endswith("CredentialsError")  # every store has a class of its own

    def passes(error: BaseException) -> bool:
        final = isinstance(error, _FINAL) or getattr(error, "errno", None) == errno.ENOSYS or no_credentials(error)
        return isinstance(error, Exception) and not final

    try:
        return retry(path, action, passes)
    except PermissionError as error:
        raise ShardwaveError(f"{path}: access is denied ({one_line(error)}): check the credentials and their rights") from None
    except Exception as error:
        if not no_credentials(error):
            raise
        raise ShardwaveError(f"{path}: {one_line(error)}: give the store's credentials in the environment") from None


def _key(path: UPath) -> str:
    return path.path.rstrip("/")


def _local_info(path: Path | str) -> FileInfo | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileInfo(found.st_size, found.st_mtime_ns)


def _file_info(info: Mapping[str, Any]) -> FileInfo:
    changed = next((info[name] for name in ("LastModified", "mtime", "updated", "last_modified", "created") if info.get(name)), 0)
    if isinstance(changed, str):
        changed = datetime.datetime.fromisoformat(changed)
    if isinstance(changed, datetime.datetime):
        changed = changed.timestamp()
    return FileInfo(int(info["size"] or 0), int(changed * 1e9), str(info.get("ETag") or info.get("etag") or "").strip('"'))
