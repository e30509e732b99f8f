"""Random access to stored samples, by memory-mapping their tar files."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from shardwave.common import regular_file, typed
from shardwave.common.errors import ShardwaveError
from shardwave.shards.format import index
from shardwave.shards.format.layout import BLOCK, INDEX, NPY_HEADER, SHARD_FILE, TAR
from shardwave.shards.format.manifest import ShardEntry
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.read.view import OpenedSet, View, mapped_array, row_bytes

SLOW = 1 << 20  # bytes per millisecond; a slower copy has waited for the disk or for page faults


class StoredView(View):
    """Random access to the stored samples of some shards, in the order of the shards.

    The tars are memory-mapped. A view needs 24 bytes per sample and 4 more per array field. The data are in
    the page cache, which all processes share.

    Args:
        shards: The set.
        entries: Manifest entries of the shards.

    Attributes:
        entries: Manifest entries of the shards.
        counts: For each field with a varying length, this length of each sample. int32 [samples].
    """

    def __init__(self, shards: OpenedSet, entries: Sequence[ShardEntry]) -> None:
        self.set = shards
        self.entries = list(entries)
        self._mapping = threading.Lock()
        self._cold = True  # whether the last copy was slow: read from disk, or mapped for the first time
        self._fields = {name: field for name, field in shards.stored.items() if name not in ("cls", "json")}
        self._files = [(f"{shards.path}/{entry['file']}", int(entry["bytes"])) for entry in entries]
        self._maps: list[mmap.mmap | None] = [None] * len(self._files)
        self._addresses = np.zeros(len(self._files), np.int64)  # of each mapped tar; 0: not mapped yet
        sizes = [int(entry["samples"]) for entry in entries]
        shards.ensure_local(self.entries, INDEX)
        # Before the arrays below: a wrong number of samples in the manifest must not exhaust the memory
        self._stamps = [
            _check_files(path, entry, len(shards.stored), shards.local)
            for (path, _), entry in zip(self._files, entries, strict=True)
        ]
        self._shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.cls = np.empty(sum(sizes), np.int64)
        self.clip = np.empty(sum(sizes), np.int64)
        # Offset of each sample's data in its tar, in blocks
        self._block = {name: np.empty(sum(sizes), np.uint32) for name in (*self._fields, "json")}
        varying = [name for name, field in self._fields.items() if None in field["shape"]]
        self.counts = {name: np.empty(sum(sizes), np.int32) for name in varying}
        self._read_indexes(np.cumsum([0, *sizes]).tolist())

    def _read_indexes(self, starts: list[int]) -> None:
        """Fill `cls`, `clip` and `_block` from the indexes; shard n begins at row starts[n].

        Compiled code later uses classes, clip numbers and offsets without a check, so they are checked here
        and in `index.read`. Threads would not make this faster: it holds the interpreter lock.
        """
        for number, (path, _) in enumerate(self._files):
            rows = slice(starts[number], starts[number + 1])
            contents = _open_index(path, self.entries[number])
            if len(contents):
                low, high = int(contents.cls.min()), int(contents.cls.max())
                if low < -1 or high >= len(self.set.classes):
                    bad = low if low < -1 else high
                    raise ShardwaveError(
                        f"{path}: the index names class {bad}, the set has {len(self.set.classes)} "
                        "classes: build the set again"
                    )
                if contents.clip.min() < 0:
                    raise ShardwaveError(
                        f"{path}: the index names clip {contents.clip.min()}: build the set again"
                    )
            self.cls[rows], self.clip[rows] = contents.cls, contents.clip
            for name, block in self._block.items():
                if name not in contents.offset:
                    raise ShardwaveError(
                        f"{path}: the index lacks the field {name} of the manifest: build the set again"
                    )
                if name in self._fields and not self._fits(contents.length[name], rows, name):
                    field = self._fields[name]
                    declared = f"{name} ({field['dtype']} {field['shape']})"
                    raise ShardwaveError(f"{path}: the index does not fit the field {declared}: run verify")
                np.right_shift(contents.offset[name], 9, out=block[rows], casting="unsafe")  # BLOCK is 2**9

    def _fits(self, lengths: np.ndarray, rows: slice, name: str) -> bool:
        """Return whether the bytes of a field fit its type and shape, and fill `counts`."""
        step = row_bytes(self._fields[name])
        if name not in self.counts:
            return bool((lengths == NPY_HEADER + step).all())
        counts, rest = np.divmod(lengths - NPY_HEADER, step)
        self.counts[name][rows] = counts
        return not rest.any() and bool((counts > 0).all() and (counts < 2**31).all())

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredView, (self.set, self.entries)  # each process maps the files itself

    @property
    def is_full(self) -> np.ndarray:
        """Whether each sample shows its full clip, see `View.is_full`."""
        matches = [SHARD_FILE.fullmatch(entry["file"]) for entry in self.entries]
        full = np.array([match is not None and match[2] != "slice" for match in matches], bool)
        return np.asarray(full[self._shard])

    def _copy(self, rows: np.ndarray, name: str, target: np.ndarray, spans: np.ndarray | None) -> None:
        if spans is not None:
            raise ValueError(f"{self.set.location}: spans need a set that was built with --layout strip")
        from shardwave.shards.read.gather import copy_rows

        starts, length = self.starts(rows, name), row_bytes(self._fields[name])
        with self.watched(rows, starts, np.full(len(rows), length), target.nbytes):
            copy_rows(self.addresses(rows) + starts, target)

    def starts(self, rows: np.ndarray, name: str) -> np.ndarray:
        """Return the positions of the data of a field in the tars of samples, in bytes. int64 [rows]."""
        return np.asarray(self._block[name][rows].astype(np.int64) * BLOCK + NPY_HEADER)

    def addresses(self, rows: np.ndarray) -> np.ndarray:
        """Return the addresses of the tars of samples, which are mapped if necessary. int64 [rows]."""
        shard = self._shard[rows]
        mapped = self._addresses[shard]
        if not mapped.all():
            numbers = np.unique(shard[mapped == 0]).tolist()
            self.set.ensure_local([self.entries[number] for number in numbers], TAR)
            for number in numbers:
                self._map(number)
            mapped = self._addresses[shard]
        return np.asarray(mapped)

    @contextlib.contextmanager
    def watched(
        self, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray, written: int
    ) -> Iterator[None]:
        """Time a copy of a batch; if the last one was slow, first request all its bytes from the disk.

        Concurrent reads are faster than consecutive page faults.

        Args:
            rows: Indices of the samples. int64 [rows].
            starts: First byte that is read in the tar of each sample. int64 [rows].
            lengths: Number of bytes that are read of each sample. int64 [rows].
            written: Number of bytes that the copy writes.
        """
        self.addresses(rows)  # maps the tars: not a part of the time
        if self._cold and written > SLOW:
            shards = self._shard[rows].tolist()
            for number, start, length in zip(shards, starts.tolist(), lengths.tolist(), strict=True):
                page = start // mmap.PAGESIZE * mmap.PAGESIZE
                self._mapped_file(number).madvise(mmap.MADV_WILLNEED, page, start + length - page)
        started = time.perf_counter()
        yield
        self._cold = written < SLOW * 1e3 * (time.perf_counter() - started)

    def data(self, i: int, field: str) -> memoryview:
        """Return the bytes of an array field of one sample, see `View.data`."""
        start = int(self._block[field][i]) * BLOCK + NPY_HEADER
        length = row_bytes(self._fields[field]) * (int(self.counts[field][i]) if field in self.counts else 1)
        return memoryview(self._mapped(i))[start : start + length]

    def meta(self, i: int) -> SampleMeta:
        """Return the json field of sample `i`.

        Raises:
            ShardwaveError: The field is damaged; the message names the shard.
        """
        start, mapped = int(self._block["json"][i]) * BLOCK, self._mapped(i)
        where = f"{self._files[self._shard[i]][0]}: the json field of sample {i}"
        try:
            length = int(mapped[start - BLOCK + 124 : start - BLOCK + 135], 8)  # size in the tar header
        except ValueError:
            raise ShardwaveError(f"{where} is damaged: it has no tar header: run verify") from None
        return typed.check(
            typed.parse(mapped[start : start + length], where), SampleMeta, where, "run verify"
        )

    def key(self, i: int) -> str:
        """Return the key of sample `i`."""
        start = (int(self._block["json"][i]) - 1) * BLOCK
        name = self._mapped(i)[start : start + 100].split(b"\0", 1)[0]
        return name.decode("ascii", "backslashreplace").removesuffix(".json")

    def split_and_shard(self, i: int) -> tuple[str, str]:
        """Return the split of sample `i` and the file name of its shard."""
        name = self.entries[self._shard[i]]["file"]
        return name.split("-")[0], name

    def array(self, i: int, field: str) -> np.ndarray:
        """Return an array field of one stored sample; the array refers to the mapped shard."""
        return mapped_array(self.data(i, field), self._fields[field])

    def check_files(self) -> None:
        """Check that every shard is still the file that was opened, see `View.check_files`."""
        self.set.ensure_local(self.entries, TAR)
        for number, (path, size) in enumerate(self._files):
            self._check_stamp(number, _check_size(path, size))

    def _check_stamp(self, number: int, now: _Stamp) -> None:
        """Compare a shard's file with the one that was opened; the first call records it."""
        before, path = self._stamps[number], self._files[number][0]
        if before is None:
            self._stamps[number] = now
        elif before != now:
            raise ShardwaveError(
                f"{path}: the shard was replaced or changed while the set was open: start again, and do not "
                "write into a set that is being read"
            )

    def _mapped(self, i: int) -> mmap.mmap:
        return self._mapped_file(int(self._shard[i]))

    def _mapped_file(self, number: int) -> mmap.mmap:
        return self._maps[number] or self._map(number)

    def _map(self, number: int) -> mmap.mmap:
        with self._mapping:
            mapped = self._maps[number]
            if mapped is None:
                path, size = self._files[number]
                self.set.ensure_local([self.entries[number]], TAR)
                _check_size(path, size)
                _allow_files(len(self._files))
                with open(path, "rb", opener=regular_file.opener) as file:
                    self._check_stamp(number, _stamp(os.fstat(file.fileno())))  # of the file that is mapped
                    try:
                        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                    except (OSError, ValueError) as error:
                        raise ShardwaveError(f"{path}: the shard cannot be mapped: {error}") from None
                self._maps[number] = mapped
                self._addresses[number] = np.frombuffer(mapped, np.uint8).ctypes.data
            return mapped


def _check_files(path: str, entry: ShardEntry, fields: int, local: bool) -> _Stamp | None:
    """Check the size of a shard's index and, if the set is on disk, of its tar; returns the tar's stamp."""
    columns, where = index.file_bytes(entry["samples"], fields), path.removesuffix(TAR) + INDEX
    try:
        size = os.stat(where).st_size
    except OSError as error:
        raise ShardwaveError(
            f"{where}: the shard's index cannot be read ({error.strerror}): build the set again, or "
            "restore the file"
        ) from None
    if not columns <= size <= columns + index.MAX_HEADER:
        raise ShardwaveError(
            f"{where}: the index is truncated or not the one of the manifest: {size} bytes, where the "
            f"manifest names {entry['samples']} samples: restore the file, or build the set again"
        )
    return _check_size(path, int(entry["bytes"])) if local else None


def _open_index(path: str, entry: ShardEntry) -> index.Index:
    """Read the index of the shard `path` and check it against the manifest."""
    contents = index.read(path.removesuffix(TAR) + INDEX)
    if (contents.tar_blake3, contents.tar_bytes, len(contents)) != (
        entry["blake3"],
        entry["bytes"],
        entry["samples"],
    ):
        raise ShardwaveError(
            f"{path}: the index is stale (it belongs to another tar than the manifest names): restore it, "
            "or build the set again"
        )
    return contents


_Stamp = tuple[int, int, int, int]  # device, inode, bytes, time of the last change in ns


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_size(path: str, size: int) -> _Stamp:
    """Check that the file has `size` bytes; returns its stamp."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ShardwaveError(
            f"{path}: the shard is missing ({error.strerror}): restore it, or build the set again"
        ) from None
    if status.st_size != size:
        raise ShardwaveError(
            f"{path}: the shard is truncated or not the one of the manifest ({status.st_size} bytes, not "
            f"{size}): restore it, or build the set again"
        )
    return _stamp(status)


def _allow_files(count: int) -> None:
    """Raise the soft limit of open files if it is too low: each mapped shard holds a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 512
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
