"""Open a shard set in a folder or at a URL."""

from __future__ import annotations

from pathlib import Path

from shardwave.shards.format import manifest
from shardwave.shards.format.layout import is_url
from shardwave.shards.read.cache import CachedSet
from shardwave.shards.read.shardset import ShardSet


def open_set(location: Path | str) -> ShardSet:
    """Open a shard set and check its manifest.

    Args:
        location: Folder of the set, or its URL (`s3://…`, `gs://…`, `https://…`, `file://…`). Files of a set
            at a URL are fetched into the local cache when they are first needed (see
            `shardwave.shards.read.cache`).

    Raises:
        UsageError: There is no set at `location`.
        ShardwaveError: The set is unfinished, damaged or of another format.
    """
    if is_url(location):
        return CachedSet(str(location))
    return ShardSet(Path(location), manifest.read(Path(location)))
