"""Opens a set, wherever it lies."""

from __future__ import annotations

from pathlib import Path

from shardwave.shards.format import manifest
from shardwave.shards.format.layout import is_url
from shardwave.shards.read.cache import CachedSet
from shardwave.shards.read.shardset import ShardSet


def open_set(location: Path | str) -> ShardSet:
    """Open the set in a folder, checking its manifest.

    Args:
        location: The folder, or a URL (`s3://…`, `gs://…`, `https://…`, `file://…`): files are then fetched into this machine's
            cache when they are first needed (see `shardwave.shards.read.cache`).

    Raises:
        UsageError: There is no set.
        ShardwaveError: It is unfinished, damaged or of another format.
    """
    return CachedSet(str(location)) if is_url(location) else ShardSet(Path(location), manifest.read(Path(location)))
