"""Sets at a URL, in a cache folder of this machine: each file is fetched once, checked, and then read as any local set's.

The cache folder is `SHARDWAVE_CACHE` (default: `shardwave/sets` in the user's cache folder) and holds up to `SHARDWAVE_CACHE_GB`
(default: 80 % of what its disk could give it). In it lies a folder per set, named after the URL and the manifest's bytes: a set
that was replaced at its URL is another one. Locks are flocks, which end with their process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any, NamedTuple

from blake3 import blake3

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.progress import bar
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import MANIFEST, QUARANTINE, REMARKS, TAR
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.read.shardset import ShardSet
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.locks import exclusive
from shardwave.shards.storage.remote import open_url, read_url

THREADS = 8  # files fetched at a time
_HEADERS = 1 << 16  # bytes; more than the header of an index takes
USED, FETCHING = ".used", ".fetching"  # locked by every process that has the set open; by the one that fetches
_GONE = ".gone-"


class CachedSet(ShardSet):
    """The set at `url`. Its files are fetched when they are first needed; while an object of it lives, they are not evicted.

    Any number of processes may have it open, and start together: one fetches a file, the others wait for it.
    """

    local = False

    def __init__(self, url: str):
        url = url.rstrip("/")
        data = read_url(f"{url}/{MANIFEST}")
        found = manifest.parse(data, f"{url}/{MANIFEST}")
        root = cache_folder()
        key = hashlib.sha256(url.encode() + b"\0" + data).hexdigest()[:16]
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", url.rsplit("/", 1)[-1])
        folder = root / f"{name}-{key}"
        try:
            self._used = _hold(root, folder)  # until this object is gone
        except OSError as error:
            raise ShardwaveError(
                f"the cache {root} cannot be written ({error.strerror}): name another by SHARDWAVE_CACHE"
            ) from None
        super().__init__(folder, found)
        self.location = url
        if not (folder / MANIFEST).exists():
            with exclusive(folder / FETCHING):
                for name, count in ((QUARANTINE, found["quarantined"]), (REMARKS, found["remarks"])):
                    if count:
                        atomic.write_bytes(folder / name, read_url(f"{url}/{name}"))
                atomic.write_bytes(folder / MANIFEST, data)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSet, (self.location,)  # another process, perhaps on another machine, opens it for itself

    def bring(self, entries: Sequence[Mapping[str, Any]], suffix: str) -> None:
        """Fetch what is missing of the shards' files with `suffix`.

        Raises ShardwaveError where they cannot be read, are not those of the manifest, or do not fit into the cache.
        """
        if not self._missing(entries, suffix):
            return
        with exclusive(self.path / FETCHING, f"waiting for another process, which fetches {self.location}"):
            wanted = self._missing(entries, suffix)
            if not wanted:
                return
            _reserve(self, wanted)
            about = {"unit": "B", "unit_scale": True, "desc": f"fetch {Path(self.location).name}", "leave": False}
            try:
                with bar(total=sum(file.size for file in wanted) or None, **about) as progress:
                    _fetch_all(self, wanted, progress)
            finally:
                for file in wanted:
                    (self.path / _temporary(file)).unlink(missing_ok=True)
            atomic.sync(self.path)

    def _missing(self, entries: Sequence[Mapping[str, Any]], suffix: str) -> list[_File]:
        found = []
        for entry in entries:
            size = int(entry["bytes"]) if suffix == TAR else 0
            most = size or _HEADERS + 256 * entry["samples"] * len(self.fields)  # of both kinds of index
            for name, digest in files_of(entry):
                there = any_path.stat(self.path / name) if name.endswith(suffix) else None
                if name.endswith(suffix) and (there is None or there.size != (size or there.size)):
                    found.append(_File(name, digest, size, most))
        return found


class _File(NamedTuple):
    name: str
    blake3: str
    size: int  # bytes; 0: small, and not known before
    most: int  # bytes that are accepted


def cache_folder() -> Path:
    """Where sets that are read from URLs lie on this machine."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SHARDWAVE_CACHE") or user / "shardwave" / "sets").absolute()


def limit(root: Path, used: int) -> float:
    """Bytes that the cache may hold, which now holds `used`."""
    given = os.environ.get("SHARDWAVE_CACHE_GB")
    if not given:
        return 0.8 * (used + shutil.disk_usage(root).free)
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not size > 0:
        raise UsageError(f"SHARDWAVE_CACHE_GB must be a number above 0, got {given}")
    return size * 1e9


def _hold(root: Path, folder: Path) -> IO[str]:
    """The set's folder, made where it is not there, as in use (by the file's lock) until the file is closed."""
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / ".lock"):  # what evicts holds it too: the folder does not go between these lines
        folder.mkdir(exist_ok=True)
        file = open(folder / USED, "a")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(file.fileno())
    return file


def _reserve(opened: CachedSet, wanted: Sequence[_File]) -> None:
    """Make room for the files: sets that no process uses go, the least recently opened first.

    Temporary files of the full length (holes, until they are filled) keep the room against other processes.
    """
    root = opened.path.parent
    with exclusive(root / ".lock"):
        for left in root.glob(f"{_GONE}*"):  # by an eviction that was cut off
            shutil.rmtree(left)
        for file in wanted:
            (opened.path / _temporary(file)).unlink(missing_ok=True)
        folders = [used.parent for used in root.glob(f"*/{USED}")]  # nothing else in there is ours to remove
        sets = {folder: os.stat(folder / USED).st_mtime for folder in folders if not folder.is_symlink()}
        sizes = {folder: sum(_size(path) for path in _with_derived(folder)) for folder in sets}
        used, needed = sum(sizes.values()), sum(file.size for file in wanted)
        most = limit(root, used)
        for folder in sorted(sets, key=lambda folder: sets[folder]):
            if used + needed > most and _evict(folder):
                used -= sizes[folder]
        if used + needed > most:
            raise ShardwaveError(
                f"{opened.location}: {needed / 1e9:.3g} GB more do not fit into the cache {root}, which may hold "
                f"{most / 1e9:.3g} GB ({used / 1e9:.3g} in use): raise SHARDWAVE_CACHE_GB, or name another by SHARDWAVE_CACHE"
            )
        for file in wanted:
            with open(opened.path / _temporary(file), "wb") as reserved:
                reserved.truncate(file.size)


def _evict(folder: Path) -> bool:
    """Remove a set that no process uses; False where one does."""
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
    """The set, last, and before it what was derived from it: that lies beside it as NAME.MORE."""
    return [*folder.parent.glob(f"{folder.name}.*/"), folder]


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))


def _fetch_all(opened: CachedSet, wanted: Sequence[_File], progress: Any) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(THREADS, "fetch") as pool:
        futures = [pool.submit(_fetch, opened, file, progress, stop) for file in wanted]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _fetch(opened: CachedSet, file: _File, progress: Any, stop: threading.Event) -> None:
    """One file under its temporary name, then its own; wrong bytes are fetched once more."""
    temporary, url = opened.path / _temporary(file), f"{opened.location}/{file.name}"
    for _ in range(2):
        digest, size = blake3(), 0
        with contextlib.closing(open_url(url)) as source, open(temporary, "r+b") as target:
            while (data := source.read(1 << 20)) and not stop.is_set():
                target.write(data)
                digest.update(data)
                size += len(data)
                if size > file.most:
                    raise ShardwaveError(f"{url}: more than {file.most} bytes came, which the manifest does not allow for")
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
        f"{url}: its bytes are not those that the manifest names (BLAKE3), fetched twice: copy or build the set there again"
    )


def _temporary(file: _File) -> str:
    return f".{file.name}.tmp"
