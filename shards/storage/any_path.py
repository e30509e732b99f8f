"""Files on disk and at URLs (`s3://bucket/prefix`, `gs://…`), by universal_pathlib and fsspec.

A store replaces an object as a whole, so objects are written without a temporary name. A request to a store
that fails temporarily is repeated (see `retry`). If it continues to fail, ShardwaveError is raised.
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
_FINAL = (  # errors that another attempt cannot resolve
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    ShardwaveError,
    TypeError,
    AttributeError,
    KeyError,
    NotImplementedError,
)


class FileInfo(NamedTuple):
    """Size and version of a file."""

    size: int  # bytes
    mtime_ns: int  # time of the last change, ns since the epoch
    version: str = ""  # ETag of the store, which changes with the content; "" if there is none


def as_path(location: AnyPath | str) -> AnyPath:
    """Return a location as a path: a Path for files on disk (also `file://`), a UPath for other URLs.

    Raises:
        UsageError: The URL's scheme is not one of `layout.SCHEMES`, or the package for it is missing.
    """
    if not is_url(location):
        return Path(location) if isinstance(location, str | Path) else location
    url = check_url(str(location))
    if url.lower().startswith("file:"):
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    from upath import UPath  # builds of local files do without it

    try:
        path = UPath(url.rstrip("/"), use_listings_cache=False)
        _ = path.fs  # created here, so that paths below it share the file system
        return path
    except (ValueError, ImportError) as error:
        raise UsageError(f"{url}: {one_line(error)}") from None


def stat(path: AnyPath) -> FileInfo | None:
    """Return size and version of a file; None if it does not exist."""
    if isinstance(path, Path):
        return _local_info(path) if path.is_file() else None
    info = _info(path)
    return _file_info(info) if info is not None and info["type"] != "directory" else None


def is_dir(path: AnyPath) -> bool:
    """Return whether a folder exists; at a URL, whether there is a file below it."""
    return path.is_dir() if isinstance(path, Path) else (_info(path) or {}).get("type") == "directory"


def exists(path: AnyPath) -> bool:
    """Return whether a file or folder exists."""
    return path.exists() if isinstance(path, Path) else _info(path) is not None


def make_folder(folder: AnyPath) -> None:
    """Create a folder and its parents if they are missing. Does nothing at a URL: stores have no folders."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def names(folder: AnyPath) -> list[str]:
    """Return the names of the files and folders in a folder; an empty list if the folder does not exist."""
    if isinstance(folder, Path):
        return os.listdir(folder) if folder.is_dir() else []
    return sorted({name.split("/")[0] for name in list_files(folder)})


def list_files(folder: UPath) -> dict[str, FileInfo]:
    """Return size and version of every file below a URL, by its path relative to the URL."""
    try:
        listing = _request(folder, lambda: folder.fs.find(_key(folder), detail=True))
    except FileNotFoundError:  # the bucket does not exist
        return {}
    files = {name[len(_key(folder)) + 1 :]: info for name, info in listing.items() if info["type"] == "file"}
    return {name: _file_info(info) for name, info in files.items() if name and not name.endswith("/")}


def stats(folder: AnyPath, files: Iterable[str]) -> Iterator[FileInfo | None]:
    """Yield size and version of each file; None for one that does not exist. A URL is listed once.

    Args:
        folder: Folder or URL.
        files: Names of the files, relative to `folder`.
    """
    return map(
        list_files(folder).get
        if not isinstance(folder, Path)
        else lambda name: _local_info(f"{folder}/{name}"),
        files,
    )


def read_bytes(path: AnyPath, start: int | None = None, end: int | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        start: First byte to read of a file at a URL; a file on disk is read completely.
        end: Byte after the last one to read of a file at a URL.

    Raises:
        OSError: The file does not exist, is not a regular file, or cannot be read.
    """
    if isinstance(path, Path):
        return regular_file.read_bytes(path)
    data: bytes = _request(path, lambda: path.fs.cat_file(_key(path), start=start, end=end))
    return data


def read_many(folder: UPath, files: Sequence[str]) -> list[bytes | None]:
    """Fetch files below a URL concurrently, without retries.

    Args:
        folder: The URL.
        files: Names of the files, relative to `folder`.

    Returns:
        The contents in the order of `files`; None for a file that could not be read.
    """
    contents = folder.fs.cat_ranges(
        [f"{_key(folder)}/{name}" for name in files], None, None, on_error="return"
    )
    return [data if isinstance(data, bytes) else None for data in contents]


def fetch(path: UPath, target: Path, size: int) -> None:
    """Copy a file at a URL to disk.

    Args:
        path: The file at the URL.
        target: The file on disk.
        size: Expected size in bytes; -1 if it is not known.

    Raises:
        FileNotFoundError: The file does not exist.
        ShardwaveError: The store refuses the request, or the copy has another size after all retries.
    """

    def copy() -> None:
        path.fs.get_file(_key(path), str(target))
        if size >= 0 and target.stat().st_size != size:
            raise OSError(f"got {target.stat().st_size} bytes, not {size}: cut off, or changed meanwhile")

    _request(path, copy)


def write(path: UPath, data: bytes | Path, *, new: bool = False) -> FileInfo:
    """Store an object at a URL.

    Args:
        path: URL of the object.
        data: Its content, or the file with its content.
        new: Whether to fail if the object exists. Only with bytes as `data`.

    Returns:
        Size and version of the object.

    Raises:
        FileExistsError: With `new`, the object exists.
        ShardwaveError: The bucket does not exist, or the store refuses the request.
    """
    size = data.stat().st_size if isinstance(data, Path) else len(data)

    def send() -> FileInfo:
        if isinstance(data, Path):
            path.fs.put_file(str(data), _key(path))
        else:
            path.fs.pipe_file(_key(path), data, mode="create" if new else "overwrite")
        info = _file_info(path.fs.info(_key(path)))
        if info.size != size:
            raise OSError(f"the store holds {info.size} bytes, not the {size} bytes that were sent")
        return info

    try:
        return _request(path, send)
    except FileNotFoundError:
        raise ShardwaveError(f"{path} cannot be written: check that the bucket exists") from None


def remove(folder: AnyPath, files: Iterable[str]) -> None:
    """Remove files of a folder if they exist; at a URL by concurrent requests.

    Args:
        folder: Folder or URL.
        files: Names of the files, relative to `folder`.
    """

    def unlink(name: str) -> None:
        path = folder / name
        with contextlib.suppress(FileNotFoundError):
            path.unlink() if isinstance(path, Path) else _request(path, lambda: path.fs.rm_file(_key(path)))

    with ThreadPoolExecutor(1 if isinstance(folder, Path) else 16, "remove") as pool:
        list(pool.map(unlink, files))


class ObjectFile(io.RawIOBase):
    """A seekable file object for a file at a URL, which is fetched in blocks.

    Args:
        path: The file at the URL.
        block: Size of a block in bytes.
        kept: Number of blocks kept in memory.

    Attributes:
        error: The exception of the last failed read; libraries that read the file may hide it.

    Raises:
        FileNotFoundError: The file does not exist.
    """

    def __init__(self, path: UPath, block: int = 1 << 14, kept: int = 64) -> None:
        super().__init__()
        info = stat(path)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "No such object", str(path))
        self.error: Exception | None = None
        self._size, self._position, self._block = info.size, 0, block
        self._read = functools.lru_cache(kept)(
            lambda start: read_bytes(path, start, min(start + block, info.size))
        )

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position, as `io.IOBase.seek`."""
        self._position = max(0, (0, self._position, self._size)[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Short reads occur only at the end of the file, as some callers stop at one."""
        filled, count = 0, min(len(buffer), max(0, self._size - self._position))
        try:
            while filled < count:
                start, within = self._position - self._position % self._block, self._position % self._block
                data = self._read(start)[within : within + count - filled]
                if not data:
                    raise ShardwaveError("a file at a URL became shorter while it was being read")
                buffer[filled : filled + len(data)] = data
                filled, self._position = filled + len(data), self._position + len(data)
        except Exception as error:
            self.error = error
            raise
        return filled


def _info(path: UPath) -> Mapping[str, Any] | None:
    try:
        info: Mapping[str, Any] = _request(path, lambda: path.fs.info(_key(path)))
    except FileNotFoundError:
        return None
    return info


def _request(path: UPath, action: Callable[[], T]) -> T:
    """Return the result of `action`, which is repeated if it fails for a temporary reason."""

    def no_credentials(error: BaseException) -> bool:
        return type(error).__name__.endswith("CredentialsError")  # each store's package has its own class

    def passes(error: BaseException) -> bool:
        final = (
            isinstance(error, _FINAL)
            or getattr(error, "errno", None) == errno.ENOSYS
            or no_credentials(error)
        )
        return isinstance(error, Exception) and not final

    try:
        return retry(path, action, passes)
    except PermissionError as error:
        raise ShardwaveError(
            f"{path}: access is denied ({one_line(error)}): check the credentials and their rights"
        ) from None
    except Exception as error:
        if not no_credentials(error):
            raise
        raise ShardwaveError(
            f"{path}: {one_line(error)}: give the store's credentials in the environment"
        ) from None


def _key(path: UPath) -> str:
    return path.path.rstrip("/")


def _local_info(path: Path | str) -> FileInfo | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FileInfo(status.st_size, status.st_mtime_ns)


def _file_info(info: Mapping[str, Any]) -> FileInfo:
    changed = next(
        (
            info[name]
            for name in ("LastModified", "mtime", "updated", "last_modified", "created")
            if info.get(name)
        ),
        0,
    )
    if isinstance(changed, str):
        changed = datetime.datetime.fromisoformat(changed)
    if isinstance(changed, datetime.datetime):
        changed = changed.timestamp()
    return FileInfo(
        int(info["size"] or 0), int(changed * 1e9), str(info.get("ETag") or info.get("etag") or "").strip('"')
    )
