"""Shard sets at a URL: each file is fetched once into a cache folder, checked, and then read from there.

The cache folder is `SHARDWAVE_CACHE` (default: `shardwave/sets` in the user's cache folder). It holds up to
`SHARDWAVE_CACHE_GB` (default: 80 % of the free space of its disk and the space that the cache uses). It
contains a folder per set, named after the URL and the hash of URL and manifest, so a set that was replaced at
its URL gets another folder. Locks are flocks: the system releases them when their process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any, NamedTuple

from blake3 import blake3

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.progress import bar
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import MANIFEST, QUARANTINE, REMARKS, TAR
from shardwave.shards.format.manifest import ShardEntry
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.read.shardset import ShardSet
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.locks import exclusive
from shardwave.shards.storage.remote import open_url, read_url

THREADS = 8  # number of files fetched at the same time
_HEADERS = 1 << 16  # bytes; above the size of the header of any index
USED = ".used"  # locked by every process that has the set open
FETCHING = ".fetching"  # locked by the process that fetches files
_GONE = ".gone-"  # prefix of folders that are being removed


class CachedSet(ShardSet):
    """A shard set at a URL. Files are fetched when they are first needed.

    While a process has the set open, its files are not evicted from the cache. Several processes may open the
    set at the same time: one of them fetches a file, the others wait for it.

    Args:
        url: URL of the set.

    Raises:
        UsageError: There is no set at the URL.
        ShardwaveError: The manifest is damaged or cannot be read, or the cache cannot be written.
    """

    local = False

    def __init__(self, url: str) -> None:
        url = url.rstrip("/")
        data = read_url(f"{url}/{MANIFEST}")
        contents = manifest.parse(data, f"{url}/{MANIFEST}")
        root = cache_folder()
        key = hashlib.sha256(url.encode() + b"\0" + data).hexdigest()[:16]
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", url.rsplit("/", 1)[-1])
        folder = root / f"{name}-{key}"
        try:
            self._used = _hold(root, folder)  # closed, and so unlocked, when this object is deleted
        except OSError as error:
            raise ShardwaveError(
                f"the cache {root} cannot be written ({error.strerror}): set SHARDWAVE_CACHE to another one"
            ) from None
        super().__init__(folder, contents)
        self.location = url
        if not (folder / MANIFEST).exists():
            with exclusive(folder / FETCHING):
                for name, count in ((QUARANTINE, contents["quarantined"]), (REMARKS, contents["remarks"])):
                    if count:
                        atomic.write_bytes(folder / name, read_url(f"{url}/{name}"))
                atomic.write_bytes(folder / MANIFEST, data)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.location, self._choices)  # another machine needs its own cache folder

    def ensure_local(self, entries: Sequence[ShardEntry], suffix: str) -> None:
        """Fetch the files of some shards that are missing in the cache.

        Args:
            entries: Manifest entries of the shards.
            suffix: Suffix of the files: `.tar`, `.index` or `.idx`.

        Raises:
            ShardwaveError: A file cannot be read, differs from the manifest, or does not fit into the cache.
        """
        if not self._missing(entries, suffix):
            return
        with exclusive(self.path / FETCHING, f"waiting for another process that fetches {self.location}"):
            missing = self._missing(entries, suffix)
            if not missing:
                return
            _reserve(self, missing)
            style = {
                "unit": "B",
                "unit_scale": True,
                "desc": f"fetch {Path(self.location).name}",
                "leave": False,
            }
            try:
                with bar(total=sum(file.size for file in missing) or None, **style) as progress:
                    _fetch_all(self, missing, progress)
            finally:
                for file in missing:
                    (self.path / _temporary(file)).unlink(missing_ok=True)
            atomic.sync(self.path)

    def _missing(self, entries: Sequence[ShardEntry], suffix: str) -> list[_File]:
        missing = []
        for entry in entries:
            size = int(entry["bytes"]) if suffix == TAR else 0
            max_size = size or _HEADERS + 256 * entry["samples"] * len(self.stored)  # for both kinds of index
            for name, digest in files_of(entry):
                status = any_path.stat(self.path / name) if name.endswith(suffix) else None
                if name.endswith(suffix) and (status is None or status.size != (size or status.size)):
                    missing.append(_File(name, digest, size, max_size))
        return missing


def _reopened(url: str, choices: dict[str, Any]) -> CachedSet:
    return CachedSet(url).with_views(**choices)


class _File(NamedTuple):
    name: str
    blake3: str
    size: int  # bytes; 0: unknown before it is fetched, but small
    max_size: int  # bytes; a larger file is refused


def cache_folder() -> Path:
    """Return the folder of the sets that were read from URLs: `SHARDWAVE_CACHE`, or the default."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SHARDWAVE_CACHE") or user / "shardwave" / "sets").absolute()


def limit(root: Path, used: int) -> float:
    """Return the maximum size of the cache in bytes: `SHARDWAVE_CACHE_GB`, or 80 % of the available space.

    Args:
        root: The cache folder.
        used: Bytes that the cache holds now.

    Raises:
        UsageError: `SHARDWAVE_CACHE_GB` is not a positive number.
    """
    setting = os.environ.get("SHARDWAVE_CACHE_GB")
    if not setting:
        return 0.8 * (used + shutil.disk_usage(root).free)
    try:
        size = float(setting)
    except ValueError:
        size = 0.0
    if not size > 0:
        raise UsageError(f"SHARDWAVE_CACHE_GB must be a number above 0, got {setting}")
    return size * 1e9


def _hold(root: Path, folder: Path) -> IO[str]:
    """Create the set's folder if needed and mark it as in use; returns the file whose lock is the mark."""
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / ".lock"):  # `_reserve` takes it too: the folder is not evicted in between
        folder.mkdir(exist_ok=True)
        file = open(folder / USED, "a")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(file.fileno())
    return file


def _reserve(opened: CachedSet, missing: Sequence[_File]) -> None:
    """Evict unused sets, the least recently opened first, until the files fit into the cache.

    Sparse temporary files of the full length reserve the space: other processes count them as used.
    """
    root = opened.path.parent
    with exclusive(root / ".lock"):
        for leftover in root.glob(f"{_GONE}*"):  # of an eviction that was interrupted
            shutil.rmtree(leftover)
        for file in missing:
            (opened.path / _temporary(file)).unlink(missing_ok=True)
        folders = [used.parent for used in root.glob(f"*/{USED}")]  # nothing else in there is ours to remove
        sets = {folder: os.stat(folder / USED).st_mtime for folder in folders if not folder.is_symlink()}
        sizes = {folder: sum(_size(path) for path in _with_derived(folder)) for folder in sets}
        used, needed = sum(sizes.values()), sum(file.size for file in missing)
        max_size = limit(root, used)
        for folder in sorted(sets, key=lambda folder: sets[folder]):
            if used + needed > max_size and _evict(folder):
                used -= sizes[folder]
        if used + needed > max_size:
            raise ShardwaveError(
                f"{opened.location}: {needed / 1e9:.3g} GB more do not fit into the cache {root} of at most "
                f"{max_size / 1e9:.3g} GB ({used / 1e9:.3g} GB in use): raise SHARDWAVE_CACHE_GB, or set "
                "SHARDWAVE_CACHE to another folder"
            )
        for file in missing:
            with open(opened.path / _temporary(file), "wb") as reserved:
                reserved.truncate(file.size)


def _evict(folder: Path) -> bool:
    """Remove a set from the cache; returns False if a process uses it."""
    with open(folder / USED, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        for path in _with_derived(folder):
            gone = path.with_name(f"{_GONE}{path.name}")
            os.rename(path, gone)
            shutil.rmtree(gone)
    return True


def _with_derived(folder: Path) -> list[Path]:
    """Return the folders NAME.* derived from the set NAME, and at the end the folder of the set itself."""
    return [*folder.parent.glob(f"{folder.name}.*/"), folder]


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))


def _fetch_all(opened: CachedSet, missing: Sequence[_File], progress: Any) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(THREADS, "fetch") as pool:
        futures = [pool.submit(_fetch, opened, file, progress, stop) for file in missing]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _fetch(opened: CachedSet, file: _File, progress: Any, stop: threading.Event) -> None:
    """Fetch a file under a temporary name and rename it; if the digest differs, fetch it once more."""
    temporary, url = opened.path / _temporary(file), f"{opened.location}/{file.name}"
    for _ in range(2):
        digest, size = blake3(), 0
        with contextlib.closing(open_url(url)) as source, open(temporary, "r+b") as target:
            while (data := source.read(1 << 20)) and not stop.is_set():
                target.write(data)
                digest.update(data)
                size += len(data)
                if size > file.max_size:
                    raise ShardwaveError(
                        f"{url}: larger than {file.max_size} bytes, the maximum for this manifest: copy or "
                        "build the set there again"
                    )
                progress.update(len(data))
            target.truncate(size)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() == file.blake3:
            os.replace(temporary, opened.path / file.name)
            return
        if stop.is_set():
            return
        progress.update(-size)
    raise ShardwaveError(
        f"{url}: fetched twice, the BLAKE3 digest differs from the manifest: copy or build the set there "
        "again"
    )


def _temporary(file: _File) -> str:
    return f".{file.name}.tmp"
