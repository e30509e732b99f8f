"""Resident copies that another process holds, by keys that processes can exchange."""

from __future__ import annotations

from typing import NamedTuple

import torch

from shardwave.common.errors import ShardwaveError
from shardwave.models.data.batches import source_of
from shardwave.shards.read import resident_strips
from shardwave.shards.read.loader import Batch
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.resident import Resident
from shardwave.shards.read.stored_view import StoredView
from shardwave.shards.read.strip_view import StripView
from shardwave.shards.read.view import View


class CopyKey(NamedTuple):
    """Key of a resident copy.

    Attributes:
        location: Folder or URL of the set.
        set_id: Its id, see `ShardSet`.
        files: Names of the shards.
        field: The array field.
    """

    location: str
    set_id: str
    files: tuple[str, ...]
    field: str


def key_of(view: View, field: str) -> CopyKey:
    """Return the key of a copy of one field of a view."""
    stored = view.strips if isinstance(view, StripView) else view
    assert isinstance(stored, StoredView)
    files = tuple(entry["file"] for entry in stored.entries)
    return CopyKey(view.set.location, view.set.set_id, files, field)


def load(key: CopyKey, device: torch.device) -> Batch | None:
    """Make the copy with the given key.

    Args:
        key: The key.
        device: Device of the copy.

    Returns:
        The tensors, see `Resident`; of a set of strips, their frames as "npy", see `ResidentStrips`. None if
        the view is too large, see `source_of`.

    Raises:
        ShardwaveError: If the set is not the one of the key.
    """
    shard_set = open_set(key.location)
    if shard_set.set_id != key.set_id:
        raise ShardwaveError(f"{key.location} was replaced while a search reads it: start the search again")
    entries = {
        entry["file"]: entry
        for views in shard_set.manifest["splits"].values()
        for shards in views.values()
        for entry in shards
    }
    view = StoredView(shard_set, [entries[name] for name in key.files])
    if shard_set.is_strip:
        fits = device.type == "cuda" and resident_strips.fits(view, device)
        return {"npy": resident_strips.frames_of(view, device)} if fits else None
    source = source_of(view, device, key.field)
    return source.tensors if isinstance(source, Resident) else None
