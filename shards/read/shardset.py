"""The local reader: indexes are read at once, tars mapped when first needed, samples gathered straight into a batch."""

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
from shardwave.shards.format.records import SampleMeta

SLOW = 1 << 20  # bytes per millisecond; memory is faster


class ShardSet:
    """A finished shard set on disk, as `open_set` opens it; `view` reads the indexes of what it is asked for."""

    local = True  # all files are there from the start

    def __init__(self, path: Path, found: dict[str, Any]):
        self.path = path
        self.location = str(path)  # what people call the set: its folder, or the URL it is read from
        self.manifest = found
        self.classes: list[str] = found["classes"]
        self.feature_names: list[str] = found["feature_names"]
        self.fields: dict[str, dict[str, Any]] = found["fields"]
        self.fingerprint: str = found["fingerprint"]
        self.set_id: str = found["set_id"]  # of its content, labels and splits (see `manifest.set_id`)
        self.splits: list[str] = sorted(found["splits"], key=_split_order)

    def bring(self, entries: Sequence[Mapping[str, Any]], suffix: str) -> None:
        """Let the files with `suffix` of these shards be in `path`: those of a set on disk are."""

    def bring_all(self) -> None:
        """Let all files be in `path`."""
        for suffix in (INDEX, DALI_INDEX, TAR):
            self.bring(manifest.entries(self.manifest), suffix)

    @property
    def config(self) -> SpectrogramConfig | None:
        """The spectrogram's parameters; None for sets that were not made from audio."""
        config = self.manifest["config"]
        return SpectrogramConfig(**config) if manifest.is_spectrogram(config) else None

    @property
    def views(self) -> list[str]:
        """The views that the set holds: `full`, and `slice` where there are slices."""
        return [view for view in VIEWS if any(view in views for views in self.manifest["splits"].values())]

    def view(self, splits: str | Sequence[str], view: str = "full") -> View:
        """The samples of one view (or `both`: full, then slice) of one split, or of several one after another."""
        wanted = [splits] if isinstance(splits, str) else list(splits)
        for name in wanted:
            if name not in self.manifest["splits"]:
                raise UsageError(f"{self.location} has no split {name}: it has {', '.join(self.splits)}")
        if view not in (*VIEWS, "both"):
            raise UsageError(f"view must be one of {', '.join(VIEWS)}, both, got {view}")
        if view != "both" and view not in self.views:
            raise UsageError(f"{self.location} has no {view} view: it has {', '.join(self.views)}; build it with --slices")
        views = VIEWS if view == "both" else (view,)
        entries = [entry for name in wanted for each in views for entry in self.manifest["splits"][name].get(each, [])]
        return View(self, entries)


class View:
    """Samples in a fixed order: those of its shards, one shard after another.

    Memory use does not grow with the set but for 24 bytes a sample and 4 for each array field: the tars are mapped, the page
    cache is shared with others.
    """

    def __init__(self, shards: ShardSet, entries: Sequence[Mapping[str, Any]]):
        self.set = shards
        self._entries = list(entries)
        self._mapping = threading.Lock()
        self._cold = True  # the last rows came slower than memory is: from disk, or mapped for the first time
        self._arrays = {
            name: (np.dtype(field["dtype"]), tuple(field["shape"]))
            for name, field in shards.fields.items()
            if name not in ("cls", "json")
        }
        self._files = [(f"{shards.path}/{entry['file']}", int(entry["bytes"])) for entry in entries]
        self._maps: list[mmap.mmap | None] = [None] * len(self._files)
        self._addresses = np.zeros(len(self._files), np.int64)  # where each tar is mapped; 0: not yet
        sizes = [int(entry["samples"]) for entry in entries]
        shards.bring(self._entries, INDEX)
        # Before memory is taken for what the manifest says
        self._stamps = [
            _check_files(path, entry, len(shards.fields), shards.local)
            for (path, _), entry in zip(self._files, entries, strict=True)
        ]
        self._shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.cls = np.empty(sum(sizes), np.int64)
        self.clip = np.empty(sum(sizes), np.int64)
        self._block = {name: np.empty(sum(sizes), np.uint32) for name in (*self._arrays, "json")}  # of the data, in its tar
        self._read_indexes(np.cumsum([0, *sizes]).tolist())

    def _read_indexes(self, starts: list[int]) -> None:
        """Take what is needed of the indexes; that of shard n begins at row starts[n]. Threads would wait for each other here.

        What compiled code later uses without looking is checked here: classes, clip numbers, and offsets (in `index.read`).
        """
        lengths = {name: NPY_HEADER + dtype.itemsize * math.prod(shape) for name, (dtype, shape) in self._arrays.items()}
        for number, (path, _) in enumerate(self._files):
            rows = slice(starts[number], starts[number + 1])
            found = _open_index(path, self._entries[number])
            if len(found):
                low, high = int(found.cls.min()), int(found.cls.max())
                if low < -1 or high >= len(self.set.classes):
                    bad = low if low < -1 else high
                    raise ShardwaveError(
                        f"{path}: the index names class {bad}, the set has {len(self.set.classes)} classes: build the set again"
                    )
                if found.clip.min() < 0:
                    raise ShardwaveError(f"{path}: the index names clip {found.clip.min()}: build the set again")
            self.cls[rows], self.clip[rows] = found.cls, found.clip
            for name, block in self._block.items():
                if name not in found.offset:
                    raise ShardwaveError(f"{path}: the index lacks the field {name} of the manifest: build the set again")
                if name in lengths and (found.length[name] != lengths[name]).any():
                    dtype, shape = self._arrays[name]
                    wanted = f"{name} ({dtype} {list(shape)})"
                    raise ShardwaveError(f"{path}: the index does not fit the field {wanted}: run verify")
                np.right_shift(found.offset[name], 9, out=block[rows], casting="unsafe")  # BLOCK is 2**9

    def __len__(self) -> int:
        return len(self.cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return View, (self.set, self._entries)  # another process maps the files for itself

    def gather(
        self,
        indices: np.ndarray | Sequence[int],
        fields: Sequence[str] = ("npy",),
        out: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """The array `fields` of samples `indices`, in that order: {field: [len(indices), *shape]}, into `out` where given."""
        rows = np.asarray(indices, np.int64)
        if len(rows) and rows.view(np.uint64).max() >= len(self):  # a negative number is a huge one there
            raise IndexError(f"indices must lie between 0 and {len(self) - 1}, got {rows.min()} to {rows.max()}")
        from shardwave.shards.read.gather import copy_rows

        shard = self._shard[rows]
        mapped = self._addresses[shard]
        if not mapped.all():
            numbers = np.unique(shard[mapped == 0]).tolist()
            self.set.bring([self._entries[number] for number in numbers], TAR)
            for number in numbers:
                self._map(number)
            mapped = self._addresses[shard]
        gathered = {}
        for name in fields:
            if name not in self._arrays:
                raise UsageError(f"{self.set.location} has no array field {name}: it has {', '.join(self._arrays)}")
            dtype, shape = self._arrays[name]
            target = np.empty((len(rows), *shape), dtype) if out is None else out[name]
            if target.shape != (len(rows), *shape) or target.dtype != dtype:
                raise ValueError(f"out[{name!r}] must be {dtype} {(len(rows), *shape)}, got {target.dtype} {target.shape}")
            offset = self._block[name][rows].astype(np.int64) * BLOCK
            if self._cold and target.nbytes > SLOW:
                self._read_ahead(shard, offset, target.nbytes // len(rows))
            started = time.perf_counter()
            copy_rows(mapped + offset + NPY_HEADER, target)
            self._cold = target.nbytes < SLOW * 1e3 * (time.perf_counter() - started)
            gathered[name] = target
        return gathered

    def _read_ahead(self, shard: np.ndarray, offset: np.ndarray, length: int) -> None:
        """Ask for all rows of a batch at once: on disk, many reads in flight are faster than one page fault after another."""
        for number, start in zip(shard.tolist(), offset.tolist(), strict=True):
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapped_file(number).madvise(mmap.MADV_WILLNEED, page, start + length + NPY_HEADER - page)

    def data(self, i: int, field: str) -> memoryview:
        """The bytes of an array field of sample `i`, where they lie in the mapped shard (without the NumPy header)."""
        dtype, shape = self._arrays[field]
        start = int(self._block[field][i]) * BLOCK + NPY_HEADER
        return memoryview(self._mapped(i))[start : start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))]

    def meta(self, i: int) -> SampleMeta:
        """Return the json field of sample `i`; raises ShardwaveError, naming the shard, where it is damaged."""
        start, mapped = int(self._block["json"][i]) * BLOCK, self._mapped(i)
        where = f"{self._files[self._shard[i]][0]}: the json field of sample {i}"
        try:
            length = int(mapped[start - BLOCK + 124 : start - BLOCK + 135], 8)  # as its tar header says
        except ValueError:
            raise ShardwaveError(f"{where} is damaged: it has no tar header: run verify") from None
        return typed.check(typed.parse(mapped[start : start + length], where), SampleMeta, where, "run verify")

    def key(self, i: int) -> str:
        """Return the key of sample `i`, from the name of its json member."""
        start = (int(self._block["json"][i]) - 1) * BLOCK
        name = self._mapped(i)[start : start + 100].split(b"\0", 1)[0]
        return name.decode("ascii", "backslashreplace").removesuffix(".json")

    def split_and_shard(self, i: int) -> tuple[str, str]:
        """Return the split of sample `i`, and the name of its shard."""
        name = self._entries[self._shard[i]]["file"]
        return name.split("-")[0], name

    def check_files(self) -> None:
        """Check that the shards are the files that were opened, as every epoch does; no byte of them is read.

        A shard that is cut while it is mapped ends the process by SIGBUS at the next access: no reader can prevent that, so that
        sets must not be changed while they are read. What was replaced or rewritten is noticed here. Of a set at a URL, all
        shards that are not here yet are fetched.

        Raises:
            ShardwaveError: names the shard that is missing, of another length, or not the file that was opened.
        """
        self.set.bring(self._entries, TAR)
        for number, (path, size) in enumerate(self._files):
            self._check_stamp(number, _check_size(path, size))

    def _check_stamp(self, number: int, now: _Stamp) -> None:
        """Compare a shard's file with the one that was opened, or note it where none was yet."""
        before, path = self._stamps[number], self._files[number][0]
        if before is None:
            self._stamps[number] = now
        elif before != now:
            raise ShardwaveError(
                f"{path}: the shard was replaced or changed while the set was open: let nothing write into a set that is being "
                "read, and start again"
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
                self.set.bring([self._entries[number]], TAR)
                _check_size(path, size)
                _allow_files(len(self._files))
                with open(path, "rb", opener=regular_file.opener) as file:
                    self._check_stamp(number, _stamp(os.fstat(file.fileno())))  # of the very file that is mapped
                    try:
                        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                    except (OSError, ValueError) as error:
                        raise ShardwaveError(f"{path}: the shard cannot be mapped: {error}") from None
                self._maps[number] = mapped
                self._addresses[number] = np.frombuffer(mapped, np.uint8).ctypes.data
            return mapped


def _check_files(path: str, entry: Mapping[str, Any], fields: int, local: bool) -> _Stamp | None:
    """Check the size of a shard's index, and of the tar where that must be there already (its stamp is returned then)."""
    columns, where = index.file_bytes(entry["samples"], fields), path.removesuffix(TAR) + INDEX
    try:
        size = os.stat(where).st_size
    except OSError as error:
        raise ShardwaveError(
            f"{where}: the shard's index cannot be read ({error.strerror}): build the set again, or restore the file"
        ) from None
    if not columns <= size <= columns + index.HEADER_ROOM:
        raise ShardwaveError(
            f"{where}: the index is truncated or not the one of the manifest: {size} bytes, where the "
            f"manifest names {entry['samples']} samples"
        )
    return _check_size(path, int(entry["bytes"])) if local else None


def _open_index(path: str, entry: Mapping[str, Any]) -> index.Index:
    """The index of the shard `path`, checked against the manifest."""
    found = index.read(path.removesuffix(TAR) + INDEX)
    if (found.tar_blake3, found.tar_bytes, len(found)) != (entry["blake3"], entry["bytes"], entry["samples"]):
        raise ShardwaveError(f"{path}: the index is stale (it belongs to another file than the manifest names): restore it")
    return found


_Stamp = tuple[int, int, int, int]  # device, inode, bytes, time of the last change in ns


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_size(path: str, size: int) -> _Stamp:
    """Check that the file is `size` bytes long; returns what tells it from another one."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ShardwaveError(f"{path}: the shard is missing ({error.strerror}): restore it, or build the set again") from None
    if status.st_size != size:
        raise ShardwaveError(
            f"{path}: the shard is truncated or not the one the manifest names ({status.st_size} bytes, not {size})"
        )
    return _stamp(status)


def _allow_files(count: int) -> None:
    """A mapped file holds a descriptor: raise this process's soft limit where the set has more shards than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))


def _split_order(name: str) -> tuple[int, int, str]:
    order = {"train": 0, "val": 1, "test": 2}
    return (order.get(name, 3), int(name[4:]) if name.startswith("fold") else 0, name)
