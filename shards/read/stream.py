"""Sequential reading of shards from a pipe, HTTP or an object store, as a webdataset pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from shardwave.shards.format.manifest import ShardEntry
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.format.tar_reader import members
from shardwave.shards.storage.remote import open_url, read_url

Sample = dict[str, str | int | np.ndarray | SampleMeta]  # by field


class Stream(IterableDataset[Sample]):
    """Iterates over the decoded samples of shards, which are read once from front to back.

    A sample is a dict of its fields, such as {"__key__": str, "npy": array, "cls": int, "json": dict}.
    Rank r of n reads every n-th shard, and each `DataLoader` worker its share of those. Iterating raises
    ShardwaveError if a shard cannot be read completely or differs from `expected`.

    Args:
        urls: Paths or URLs of the shards, or `pipe:COMMAND` as in webdataset. That runs the command, so do
            not read `urls` from a file that you do not trust.
        expected: Manifest entry of each shard, to check its size.
        shuffle: Size of the buffer that shuffles samples. Shards are then also read in an order determined by
            `seed` and the epoch (see `set_epoch`). 0 keeps the order of shards and samples.
        seed: Seed of the order.
        rank: Rank of this process if `world_size` is given; by default that of torch.distributed.
        world_size: Number of ranks; by default that of torch.distributed.
        timeout: Timeout of a connection that delivers no byte, in seconds.
        retries: Maximum number of consecutive attempts to resume an interrupted read.
        verify: Whether to check the BLAKE3 digest of each shard against `expected` at its end.

    Raises:
        UsageError: There are no shards, or fewer than ranks.
        ValueError: `expected` has another length than `urls`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        expected: Sequence[ShardEntry] | None = None,
        shuffle: int = 1000,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        timeout: float = 30.0,
        retries: int = 8,
        verify: bool = False,
    ) -> None:
        if not urls:
            raise UsageError("a stream needs at least one shard")
        if expected is not None and len(expected) != len(urls):
            raise ValueError(f"expected must have one entry per url, got {len(expected)} for {len(urls)}")
        if world_size is not None and world_size > len(urls):
            raise UsageError(
                f"{len(urls)} shards cannot be split over {world_size} ranks: build with more --min-shards"
            )
        self.urls = list(urls)
        self.expected = list(expected) if expected is not None else None
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout
        self.retries = retries
        self.verify = verify
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Sample]:
        stages: list[Any] = [self._shards, self._files, webdataset.tariterators.group_by_keys]
        if self.shuffle:
            stages.append(
                webdataset.detshuffle(
                    self.shuffle, self.shuffle // 2, seed=self.seed * 1_000_003, epoch=self.epoch - 1
                )
            )
        return iter(webdataset.DataPipeline(*stages, webdataset.map(_decoded)))

    def _shards(self) -> Iterator[int]:
        """Yield the numbers of the shards that this rank and worker read."""
        rank, world_size, worker, workers = pytorch_worker_info()
        if self.world_size is not None:
            rank, world_size = self.rank or 0, self.world_size
        numbers = np.arange(len(self.urls))
        if self.shuffle:
            numbers = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(numbers)
        yield from map(int, numbers[rank::world_size][worker::workers])

    def _files(self, numbers: Iterable[int]) -> Iterator[dict[str, str | bytes]]:
        """Yield the members of the shards for webdataset's `group_by_keys`; {} ends a shard."""
        for number in numbers:
            url = self.urls[number]
            entry = self.expected[number] if self.expected is not None else None
            stream = open_url(url, timeout=self.timeout, retries=self.retries, commands=True)
            source = _CountedStream(stream, hashed=self.verify)
            try:
                for member in members(source, url):  # type: ignore[arg-type]
                    yield {"fname": member.name, "data": member.data, "__url__": url}
            finally:
                source.close()
            if entry is not None and source.position != entry["bytes"]:
                raise ShardwaveError(
                    f"{url}: {source.position} bytes, but the manifest says {entry['bytes']}: copy or "
                    "build the set there again"
                )
            if entry is not None and self.verify and source.hexdigest() != entry["blake3"]:
                raise ShardwaveError(
                    f"{url}: the BLAKE3 digest differs from the manifest: copy or build the set there again"
                )
            yield {}


class _CountedStream:
    """A stream that counts the bytes that are read and, with `hashed`, computes their digest."""

    def __init__(self, stream: Any, *, hashed: bool) -> None:
        self._stream = stream
        self._hash = blake3() if hashed else None
        self.position = 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
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
    """Stream one view of one or several splits of a shard set.

    Args:
        location: Folder or URL of the set.
        splits: A split, or several.
        view: `full` or `slice`; `strip` for a set of strips, whose samples hold all frames of a clip.
        **options: Arguments of `Stream`, except `urls` and `expected`.

    Returns:
        An iterable data set of decoded samples.

    Raises:
        UsageError: There is no set at `location`, or it has no such split or view.
        ShardwaveError: The manifest is damaged, of another format, or cannot be read.
    """
    base = str(location).rstrip("/")
    base = base if is_url(base) else os.path.abspath(base)  # a folder's name may look like a command
    retry_options = {name: options[name] for name in ("timeout", "retries") if name in options}
    contents = manifest.parse(read_url(f"{base}/{MANIFEST}", **retry_options), f"{base}/{MANIFEST}")
    entries: list[ShardEntry] = []
    for name in [splits] if isinstance(splits, str) else splits:
        if view not in contents["splits"].get(name, {}):
            known = ", ".join(f"{split} ({', '.join(views)})" for split, views in contents["splits"].items())
            if manifest.has_strips(contents):
                raise UsageError(
                    f"{location} has strips, from which open_set cuts the views: stream its view strip, not "
                    f"{view} (it has {known})"
                )
            raise UsageError(f"{location} has no {view} view of split {name}: it has {known}")
        entries += contents["splits"][name][view]
    return Stream([f"{base}/{entry['file']}" for entry in entries], expected=entries, **options)


def _decoded(sample: Mapping[str, Any]) -> Sample:
    where = f"{sample['__url__']}: {sample['__key__']}"
    return {
        name: value if name.startswith("__") else decode_field(name, value, where)
        for name, value in sample.items()
    }
