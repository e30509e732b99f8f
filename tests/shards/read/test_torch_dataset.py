"""A view as a torch dataset: each sample once for any number of workers, in the order of seed and epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.torch_dataset import ViewDataset


def clips(dataset: ViewDataset, workers: int) -> list[int]:
    loader = DataLoader(
        dataset, batch_size=5, num_workers=workers, multiprocessing_context="spawn" if workers else None
    )
    return [clip for batch in loader for clip in batch["clip"].tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once(built: Path, workers: int) -> None:
    view = open_set(built).view("train")
    assert sorted(clips(ViewDataset(view, shuffle=True), workers)) == sorted(view.clip.tolist())


def test_samples_are_those_of_the_view(built: Path) -> None:
    view = open_set(built).view("train", "both")
    samples = list(ViewDataset(view))
    images = view.gather(np.arange(len(view)))["npy"]
    assert len(samples) == len(view)
    for i, sample in enumerate(samples):
        assert (sample["npy"].numpy() == images[i]).all() and (sample["cls"], sample["clip"]) == (
            view.cls[i],
            view.clip[i],
        )


def test_the_order_follows_from_seed_and_epoch(built: Path) -> None:
    view = open_set(built).view("train", "both")
    one, other = ViewDataset(view, shuffle=True, seed=1), ViewDataset(view, shuffle=True, seed=1)
    assert clips(one, 0) == clips(other, 0)
    other.set_epoch(1)
    assert clips(one, 0) != clips(other, 0) and sorted(clips(one, 0)) == sorted(clips(other, 0))
