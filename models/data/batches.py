"""Batches of a view, from disk or from a copy on the device, marked by view where both are mixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from shardwave.shards.read.loader import Batch, Loader, Source
from shardwave.shards.read.resident import Resident, fits, size
from shardwave.shards.read.shardset import ShardSet, View

# What a process copies into its own memory; larger views are gathered from the page cache that processes share
HOST_BYTES = 64 << 20


class Batches(Loader):
    """A Loader that knows its view; with a `seed` it shuffles.

    `whole` (bool [samples]) marks the whole clips of a mixed view; batches then bear it as "full". Other options: see Loader.
    """

    def __init__(
        self,
        view: View,
        source: View | Source,
        field: str,
        batch_size: int,
        *,
        whole: np.ndarray | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(source, batch_size, fields=(field,), shuffle=seed is not None, seed=seed or 0, **options)
        self.view = view
        self._whole = None if whole is None else torch.from_numpy(whole)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if self._whole is not None:
                batch["full"] = self._whole[batch["index"].cpu()].to(batch["cls"].device)
            yield batch


def source_of(view: View, device: torch.device, field: str) -> View | Resident:
    """A copy on the device where it fits (half of what is free on a GPU, HOST_BYTES on the CPU), or else the view itself."""
    if device.type == "cuda":
        return Resident(view, device, (field,)) if fits(view, device, (field,)) else view
    return Resident(view, device, (field,)) if size(view, (field,)) <= HOST_BYTES else view


def whole_clips(shard_set: ShardSet, splits: tuple[str, ...]) -> np.ndarray:
    """For each sample of `shard_set.view(splits, "both")`, whether it is a whole clip. Shape: bool [samples]."""
    marks = []
    for split in splits:
        for view in ("full", "slice"):
            entries = shard_set.manifest["splits"][split].get(view, [])
            marks.append(np.full(sum(entry["samples"] for entry in entries), view == "full"))
    return np.concatenate(marks)
