"""Batches of a view, read from the shards or from a copy on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from shardwave.shards.read import resident_strips
from shardwave.shards.read.loader import Batch, Loader, Source
from shardwave.shards.read.resident import Resident, fits, size
from shardwave.shards.read.resident_strips import ResidentStrips
from shardwave.shards.read.strip_view import StripView
from shardwave.shards.read.view import View

# Maximum size of a view that a process copies into its own memory. Larger views are read from the page cache,
# which processes share.
HOST_BYTES = 64 << 20


class Batches(Loader):
    """Loader of the batches of a view.

    Args:
        view: View to read.
        source: Storage of the samples: the view itself, or a copy of it.
        field: Array field to load.
        batch_size: Samples per batch.
        is_full: Whether each sample is a full clip, bool [samples]; for a view that mixes full clips and
            slices. Batches then have the entry "full", bool [batch].
        seed: Seed of the sample order; None does not shuffle.
        **options: Further arguments of `Loader`.
    """

    def __init__(
        self,
        view: View,
        source: View | Source,
        field: str,
        batch_size: int,
        *,
        is_full: np.ndarray | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            source, batch_size, fields=(field,), shuffle=seed is not None, seed=seed or 0, **options
        )
        self.view = view
        self._is_full = None if is_full is None else torch.from_numpy(is_full)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if self._is_full is not None:
                batch["full"] = self._is_full[batch["index"].cpu()].to(batch["cls"].device)
            yield batch


def source_of(
    view: View, device: torch.device, field: str, *, redrawn: bool = False
) -> View | Resident | ResidentStrips:
    """Return a copy of a view on a device, or the view itself if it is too large.

    A copy takes at most half of the free memory of a GPU, or `HOST_BYTES` on the CPU. On a GPU, it is of the
    strips of a view that is cut from strips.

    Args:
        view: View to copy.
        device: Device of the copy.
        field: Array field to copy.
        redrawn: Whether each epoch reads other frames of the strips, of which the CPU makes no copy.
    """
    if isinstance(view, StripView) and field == "npy":
        if device.type == "cuda":
            return ResidentStrips(view, device) if resident_strips.fits(view.strips, device) else view
        if redrawn:
            return view
    if device.type == "cuda":
        return Resident(view, device, (field,)) if fits(view, device, (field,)) else view
    return Resident(view, device, (field,)) if size(view, (field,)) <= HOST_BYTES else view
