"""Random access to the samples of a shard set on disk, by memory-mapping its tar files."""

from __future__ import annotations

import math
import mmap
import os
import resource
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common import regular_file, typed
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.format import index, manifest
from shardwave.shards.format.layout import BLOCK, DALI_INDEX, INDEX, NPY_HEADER, TAR, VIEWS
from shardwave.shards.format.manifest import Field, Manifest, ShardEntry
from shardwave.shards.format.records import SampleMeta

JOIN = "+"  # between the names of joined fields
SLOW = 1 << 20  # bytes per millisecond; a slower copy has waited for the disk or for page faults


class ShardSet:
    """A finished shard set on disk. `open_set` creates it; `view` gives access to its samples.

    Args:
        path: Folder of the set's files.
        contents: The checked manifest.

    Attributes:
        location: Folder or URL of the set, for messages.
        manifest: Contents of `manifest.json`.
        classes: Class names, sorted; a sample's `cls` is an index into them.
        feature_names: Names of the audio features, or of the table's columns if the set was built from a
            table.
        fields: Type and shape of every field.
        fingerprint: Hash of the configuration and the format.
        set_id: Hash of the content, labels and splits (see `manifest.set_id`).
        splits: Names of the splits: train, val, test, then the folds in numerical order.
    """

    local = True  # whether all files are on disk when the set is opened

    def __init__(self, path: Path, contents: Manifest) -> None:
        self.path = path
        self.location = str(path)
        self.manifest = contents
        self.classes = contents["classes"]
        self.feature_names = contents["feature_names"]
        self.fields = contents["fields"]
        self.fingerprint = contents["fingerprint"]
        self.set_id = contents["set_id"]
        self.splits: list[str] = sorted(contents["splits"], key=_split_order)

    def ensure_local(self, entries: Sequence[ShardEntry], suffix: str) -> None:
        """Fetch the files of some shards that are missing in `path`. Does nothing for a set on disk.

        Args:
            entries: Manifest entries of the shards.
            suffix: Suffix of the files: `.tar`, `.index` or `.idx`.
        """

    def ensure_all_local(self) -> None:
        """Fetch all files of the set that are missing in `path`."""
        for suffix in (INDEX, DALI_INDEX, TAR):
            self.ensure_local(manifest.entries(self.manifest), suffix)

    @property
    def config(self) -> SpectrogramConfig | None:
        """Spectrogram configuration; None if the set was not built from audio."""
        config = self.manifest["config"]
        return SpectrogramConfig(**config) if manifest.is_spectrogram(config) else None

    def field(self, name: str) -> Field:
        """Return type and shape of an array field, or of several vector fields joined by `+`.

        The values of `features.npy+aisfx.npy` are those of `features.npy`, followed by those of `aisfx.npy`.

        Args:
            name: The name.

        Raises:
            UsageError: The set has no such field, or the joined fields are not vectors of one type.
        """
        declared = []
        for part in name.split(JOIN):
            if part not in self.fields or part in manifest.OWN_FIELDS:
                listed = ", ".join(each for each in self.fields if each not in manifest.OWN_FIELDS)
                raise UsageError(f"{self.location} has no array field {part}: it has {listed}")
            declared.append(self.fields[part])
        if len(declared) == 1:
            return declared[0]
        if len({field["dtype"] for field in declared}) > 1 or any(
            len(field["shape"]) != 1 for field in declared
        ):
            raise UsageError(
                f"{self.location}: the fields {name} cannot be joined: they are not vectors of one type"
            )
        return {"dtype": declared[0]["dtype"], "shape": [sum(field["shape"][0] for field in declared)]}

    @property
    def views(self) -> list[str]:
        """Views that the set holds: `full`, and `slice` if it has slices."""
        return [view for view in VIEWS if any(view in views for views in self.manifest["splits"].values())]

    def view(self, splits: str | Sequence[str], view: str = "full") -> View:
        """Open the samples of one view of one or several splits.

        Args:
            splits: A split, or several; the samples of several follow one another.
            view: `full`, `slice`, or `both` (of each split first full, then slice).

        Returns:
            The samples.

        Raises:
            UsageError: The set has no such split or view.
            ShardwaveError: An index is missing, damaged or does not fit the manifest.
        """
        names = [splits] if isinstance(splits, str) else list(splits)
        for name in names:
            if name not in self.manifest["splits"]:
                raise UsageError(f"{self.location} has no split {name}: it has {', '.join(self.splits)}")
        if view not in (*VIEWS, "both"):
            raise UsageError(f"view must be one of {', '.join(VIEWS)}, both, got {view}")
        if view != "both" and view not in self.views:
            raise UsageError(
                f"{self.location} has no {view} view: it has {', '.join(self.views)}; build it with --slices"
            )
        views = VIEWS if view == "both" else (view,)
        entries = [
            entry for name in names for each in views for entry in self.manifest["splits"][name].get(each, [])
        ]
        return View(self, entries)


class View:
    """Random access to the samples of some shards, in the order of the shards.

    The tars are memory-mapped. A view needs 24 bytes per sample and 4 more per array field. The data are in
    the page cache, which all processes share.

    Args:
        shards: The set.
        entries: Manifest entries of the shards.

    Attributes:
        set: The set.
        entries: Manifest entries of the shards.
        cls: Class index of each sample, -1 if it has no label. int64 [samples].
        clip: Number of each sample's clip. int64 [samples].
    """

    def __init__(self, shards: ShardSet, entries: Sequence[ShardEntry]) -> None:
        self.set = shards
        self.entries = list(entries)
        self._mapping = threading.Lock()
        self._cold = True  # whether the last copy was slow: read from disk, or mapped for the first time
        self._arrays = {
            name: (np.dtype(field["dtype"]), tuple(field["shape"]))
            for name, field in shards.fields.items()
            if name not in ("cls", "json")
        }
        self._files = [(f"{shards.path}/{entry['file']}", int(entry["bytes"])) for entry in entries]
        self._maps: list[mmap.mmap | None] = [None] * len(self._files)
        self._addresses = np.zeros(len(self._files), np.int64)  # of each mapped tar; 0: not mapped yet
        sizes = [int(entry["samples"]) for entry in entries]
        shards.ensure_local(self.entries, INDEX)
        # Before the arrays below: a wrong number of samples in the manifest must not exhaust the memory
        self._stamps = [
            _check_files(path, entry, len(shards.fields), shards.local)
            for (path, _), entry in zip(self._files, entries, strict=True)
        ]
        self._shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.cls = np.empty(sum(sizes), np.int64)
        self.clip = np.empty(sum(sizes), np.int64)
        # Offset of each sample's data in its tar, in blocks
        self._block = {name: np.empty(sum(sizes), np.uint32) for name in (*self._arrays, "json")}
        self._read_indexes(np.cumsum([0, *sizes]).tolist())

    def _read_indexes(self, starts: list[int]) -> None:
        """Fill `cls`, `clip` and `_block` from the indexes; shard n begins at row starts[n].

        Compiled code later uses classes, clip numbers and offsets without a check, so they are checked here
        and in `index.read`. Threads would not make this faster: it holds the interpreter lock.
        """
        lengths = {
            name: NPY_HEADER + dtype.itemsize * math.prod(shape)
            for name, (dtype, shape) in self._arrays.items()
        }
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
                if name in lengths and (contents.length[name] != lengths[name]).any():
                    dtype, shape = self._arrays[name]
                    declared = f"{name} ({dtype} {list(shape)})"
                    raise ShardwaveError(f"{path}: the index does not fit the field {declared}: run verify")
                np.right_shift(contents.offset[name], 9, out=block[rows], casting="unsafe")  # BLOCK is 2**9

    def __len__(self) -> int:
        return len(self.cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return View, (self.set, self.entries)  # each process maps the files itself

    def gather(
        self,
        indices: np.ndarray | Sequence[int],
        fields: Sequence[str] = ("npy",),
        out: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Copy array fields of some samples into one array per field.

        Args:
            indices: Indices of the samples, in any order. [rows].
            fields: Names of the fields; several vector fields can be joined, see `ShardSet.field`.
            out: Arrays to write to, by field; by default they are allocated.

        Returns:
            The arrays by field, [rows, *shape of the field].

        Raises:
            IndexError: An index is outside the view.
            UsageError: The set has no such array field.
            ValueError: An array of `out` has another shape or type than the field.
            ShardwaveError: A shard is missing, truncated or was changed.
        """
        rows = np.asarray(indices, np.int64)
        if len(rows) and rows.view(np.uint64).max() >= len(self):  # unsigned: a negative index is too large
            raise IndexError(
                f"indices must lie between 0 and {len(self) - 1}, got {rows.min()} to {rows.max()}"
            )
        from shardwave.shards.read.gather import copy_rows

        shard = self._shard[rows]
        mapped = self._addresses[shard]
        if not mapped.all():
            numbers = np.unique(shard[mapped == 0]).tolist()
            self.set.ensure_local([self.entries[number] for number in numbers], TAR)
            for number in numbers:
                self._map(number)
            mapped = self._addresses[shard]
        gathered = {}
        for name in fields:
            declared = self.set.field(name)
            dtype, shape = np.dtype(declared["dtype"]), tuple(declared["shape"])
            target = np.empty((len(rows), *shape), dtype) if out is None else out[name]
            if target.shape != (len(rows), *shape) or target.dtype != dtype:
                raise ValueError(
                    f"out[{name!r}] must be {dtype} {(len(rows), *shape)}, got {target.dtype} {target.shape}"
                )
            if JOIN in name:
                parts = self.gather(rows, name.split(JOIN))
                gathered[name] = np.concatenate(list(parts.values()), axis=1, out=target)
                continue
            offset = self._block[name][rows].astype(np.int64) * BLOCK
            if self._cold and target.nbytes > SLOW:
                self._read_ahead(shard, offset, target.nbytes // len(rows))
            started = time.perf_counter()
            copy_rows(mapped + offset + NPY_HEADER, target)
            self._cold = target.nbytes < SLOW * 1e3 * (time.perf_counter() - started)
            gathered[name] = target
        return gathered

    def _read_ahead(self, shard: np.ndarray, offset: np.ndarray, length: int) -> None:
        """Request all rows of a batch at once: concurrent reads are faster than consecutive page faults."""
        for number, start in zip(shard.tolist(), offset.tolist(), strict=True):
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapped_file(number).madvise(mmap.MADV_WILLNEED, page, start + length + NPY_HEADER - page)

    def data(self, i: int, field: str) -> memoryview:
        """Return the bytes of an array field of one sample, without copying them.

        Args:
            i: Index of the sample.
            field: Name of the array field.

        Returns:
            Memory of the mapped shard, without the NumPy header.
        """
        dtype, shape = self._arrays[field]
        start = int(self._block[field][i]) * BLOCK + NPY_HEADER
        return memoryview(self._mapped(i))[
            start : start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        ]

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

    def check_files(self) -> None:
        """Check that every shard is still the file that was opened, without reading its contents.

        Readers call this at the start of each epoch. It detects shards that were replaced or rewritten. If a
        mapped shard is truncated during the epoch, the next access ends the process with SIGBUS. For a set at
        a URL, missing shards are fetched first.

        Raises:
            ShardwaveError: A shard is missing, has another size, or is not the file that was opened.
        """
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


def _split_order(name: str) -> tuple[int, int, str]:
    order = {"train": 0, "val": 1, "test": 2}
    return (order.get(name, 3), int(name[4:]) if name.startswith("fold") else 0, name)
