"""Loaders of image samples, used as their documentation shows: webdataset, ImageFolder, LitData.

Every function `*_epoch` returns a function that reads one shuffled epoch. Worker processes are kept for the
next epoch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHUFFLE = 1_000  # samples in webdataset's shuffle buffer, as in its examples


def webdataset_epoch(urls: Sequence[str], batch: int, workers: int) -> Callable[[], None]:
    """Return an epoch of webdataset: `WebDataset(urls).shuffle().decode().to_tuple().batched()`.

    Args:
        urls: Paths or URLs of the shards.
        batch: Samples of a batch.
        workers: Worker processes of a `WebLoader`, which shuffles and batches again; 0 is none.
    """
    import webdataset as wds

    shardshuffle = max(2, len(urls))
    dataset = (
        wds.WebDataset(list(urls), shardshuffle=shardshuffle, empty_check=False)
        .shuffle(SHUFFLE)
        .decode()
        .to_tuple("npy", "cls")
        .batched(batch)
    )
    loader: Any = dataset
    if workers:
        loader = wds.WebLoader(
            dataset, batch_size=None, num_workers=min(workers, len(urls)), persistent_workers=True
        )
        loader = loader.unbatched().shuffle(SHUFFLE).batched(batch)
    return lambda: _drain(loader)


def image_folder_epoch(folder: Path, batch: int, workers: int, samples: int) -> Callable[[], None]:
    """Return an epoch of `ImageFolder(folder, transform=ToTensor())` in a shuffling DataLoader.

    Args:
        folder: Class folders of images.
        batch: Samples of a batch.
        workers: Worker processes; 0 is none.
        samples: Number of files, drawn once.
    """
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(folder), transform=transforms.ToTensor())
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:samples].tolist()
    loader = DataLoader(
        Subset(dataset, chosen),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: _drain(loader)


def litdata_write(images: np.ndarray, count: int, out: Path) -> None:
    """Write a data set with `litdata.optimize`, in chunks of 64 MB by one worker.

    Args:
        images: uint8 [n, height, width], repeated.
        count: Number of samples.
        out: Folder of the data set.
    """
    _quiet_litdata()
    import litdata

    np.save(out.with_suffix(".npy"), images)
    sample = _LitSample(str(out.with_suffix(".npy")))
    litdata.optimize(
        fn=sample,
        inputs=list(range(count)),
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def litdata_epoch(folder: Path, batch: int, workers: int) -> Callable[[], None]:
    """Return an epoch of `StreamingDataset(folder, shuffle=True)` in a `StreamingDataLoader`.

    LitData's documentation advises `batch_decode=0`, one item at a time, for large samples; the automatic
    choice decodes forty items for each item that is used.

    Args:
        folder: Data set of `litdata_write`.
        batch: Samples of a batch.
        workers: Worker processes; 0 is none.
    """
    _quiet_litdata()
    import litdata

    dataset = litdata.StreamingDataset(str(folder), shuffle=True, batch_decode=0)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: _drain(loader)


class _LitSample:
    """Function of sample i of an array file, which can be pickled for LitData's worker process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, i: int) -> dict[str, Any]:
        images = np.load(self.path, mmap_mode="r")
        return {"image": np.array(images[i % len(images)]), "class": i % 10}


def _quiet_litdata() -> None:
    os.environ.setdefault("DISABLE_TELEMETRY", "1")
    logging.getLogger("litdata").setLevel(logging.ERROR)


def _drain(loader: Iterable[Any]) -> None:
    for _ in loader:
        pass
