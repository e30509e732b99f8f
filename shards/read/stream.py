"""Reading from a pipe, HTTP or an object store: a webdataset pipeline with our openers, checks and split over ranks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from blake3 import blake3
from torch.utils.data import IterableDataset
from webdataset.utils import pytorch_worker_info

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.format import manifest
from shardwave.shards.format.decode_sample import decode_field
from shardwave.shards.format.layout import MANIFEST, is_url
from shardwave.shards.format.tar_reader import members
from shardwave.shards.storage.remote import open_url, read_url

Sample = dict[str, Any]


class Stream(IterableDataset):
    """Decoded samples {"__key__", "npy": array, "cls": int, "json": dict, ...} from shards that are read once, front to back.

    Shards go in an order fixed by (seed, epoch); of it rank r of n takes every n-th, of those each DataLoader worker its share. A
    buffer of `shuffle` samples mixes them (0: all in their own order). Raises ShardwaveError where a shard is not read in full.
    `urls` may be paths, URLs and, as in webdataset, `pipe:COMMAND`, which runs the command: never take them from a file.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        expected: Sequence[dict[str, Any]] | None = None,
        shuffle: int = 1000,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        timeout: float = 30.0,
        retries: int = 8,
        verify: bool = False,
    ):
        if not urls:
            raise UsageError("a stream needs at least one shard")
        if expected is not None and len(expected) != len(urls):
            raise ValueError(f"expected must have one entry per url, got {len(expected)} for {len(urls)}")
        if world_size is not None and world_size > len(urls):
            raise UsageError(f"{len(urls)} shards cannot be split over {world_size} ranks: build with more --min-shards")
        self.urls = list(urls)
        self.expected = list(expected) if expected is not None else None  # the manifest's entries of the shards
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout  # seconds without a byte
        self.retries = retries
        self.verify = verify  # the BLAKE3 digest of every shard, at its end
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Sample]:
        stages: list[Any] = [self._shards, self._files, webdataset.tariterators.group_by_keys]
        if self.shuffle:
            stages.append(
                webdataset.detshuffle(self.shuffle, self.shuffle // 2, seed=self.seed * 1_000_003, epoch=self.epoch - 1)
            )
        return iter(webdataset.DataPipeline(*stages, webdataset.map(_decoded)))

    def _shards(self) -> Iterator[int]:
        """The numbers of the shards that this rank and worker read."""
        rank, world_size, worker, workers = pytorch_worker_info()
        if self.world_size is not None:
            rank, world_size = self.rank or 0, self.world_size
        numbers = np.arange(len(self.urls))
        if self.shuffle:
            numbers = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(numbers)
        yield from map(int, numbers[rank::world_size][worker::workers])

    def _files(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The members of the shards, as webdataset's `group_by_keys` takes them ({} ends a shard)."""
        for number in numbers:
            url = self.urls[number]
            entry = self.expected[number] if self.expected is not None else None
            source = _Watched(open_url(url, timeout=self.timeout, retries=self.retries, commands=True), hashed=self.verify)
            try:
                for member in members(source, url):  # type: ignore[arg-type]
                    yield {"fname": member.name, "data": member.data, "__url__": url}
            finally:
                source.close()
            if entry is not None and source.position != entry["bytes"]:
                raise ShardwaveError(f"{url}: {source.position} bytes, where the manifest says {entry['bytes']}")
            if entry is not None and self.verify and source.hexdigest() != entry["blake3"]:
                raise ShardwaveError(f"{url}: its bytes are not those that the manifest names (BLAKE3)")
            yield {}


class _Watched:
    """A stream's bytes counted and, if asked for, hashed."""

    def __init__(self, stream: Any, *, hashed: bool):
        self._stream = stream
        self._hash = blake3() if hashed else None
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.position += len(data)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        assert self._hash is not None
        return self._hash.hexdigest()

    def close(self) -> None:
        self._stream.close()


def stream(location: Path | str, splits: str | Sequence[str], view: str = "full", **options: Any) -> Stream:
    """Stream one view of splits of the set in the folder or at the URL `location`; `options` are those of `Stream`."""
    base = str(location).rstrip("/")
    base = base if is_url(base) else os.path.abspath(base)  # a folder, whatever its name looks like
    how = {name: options[name] for name in ("timeout", "retries") if name in options}
    found = manifest.parse(read_url(f"{base}/{MANIFEST}", **how), f"{base}/{MANIFEST}")
    entries = []
    for name in [splits] if isinstance(splits, str) else splits:
        if view not in found["splits"].get(name, {}):
            known = ", ".join(f"{split} ({', '.join(views)})" for split, views in found["splits"].items())
            raise UsageError(f"{location} has no {view} view of split {name}: it has {known}")
        entries += found["splits"][name][view]
    return Stream([f"{base}/{entry['file']}" for entry in entries], expected=entries, **options)


def _decoded(sample: Sample) -> Sample:
    where = f"{sample['__url__']}: {sample['__key__']}"
    return {name: value if name.startswith("__") else decode_field(name, value, where) for name, value in sample.items()}
