"""A view as a `torch.utils.data.IterableDataset`, for programs with their own `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import IterableDataset, get_worker_info

from shardwave.shards.read.loader import Loader
from shardwave.shards.read.shardset import View

CHUNK = 64  # samples read at a time
ViewSample = dict[str, torch.Tensor | int]  # by field


class ViewDataset(IterableDataset[ViewSample]):
    """Iterates over the samples of a view. Each worker of a `DataLoader` reads its share of them.

    A sample is a dict of its array fields as tensors, and the integers "cls" (class index, -1 if unlabelled)
    and "clip" (number of the clip).

    Args:
        view: The samples.
        fields: Array fields to read.
        shuffle: Shuffle the samples in an order determined by `seed` and the epoch (see `set_epoch`).
        seed: Seed of the order.

    Example:
        >>> dataset = shardwave.as_dataset("sets/mine", "train", shuffle=True)
        >>> for batch in DataLoader(dataset, batch_size=32, num_workers=2):
        ...     images, labels = batch["npy"], batch["cls"]
    """

    def __init__(
        self, view: View, fields: Sequence[str] = ("npy",), *, shuffle: bool = False, seed: int = 0
    ) -> None:
        self.view, self.fields, self.shuffle, self.seed = view, tuple(fields), shuffle, seed
        self.epoch = 0

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.view)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order. Call it before the workers of a `DataLoader` start."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[ViewSample]:
        info = get_worker_info()
        rank, world_size = (0, 1) if info is None else (info.id, info.num_workers)
        loader = Loader(
            self.view,
            CHUNK,
            fields=self.fields,
            shuffle=self.shuffle,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            pad=False,
        )
        loader.set_epoch(self.epoch)
        for batch in loader:
            labels, clips = batch["cls"].tolist(), batch["clip"].tolist()
            arrays = {name: batch[name] for name in self.fields}
            for i in range(len(labels)):
                # Clone: the loader reuses the buffer of a batch that is no longer referenced
                yield {
                    **{name: torch.clone(values[i]) for name, values in arrays.items()},
                    "cls": labels[i],
                    "clip": clips[i],
                }
