"""Loaders of image samples as their documents show them: webdataset, torchvision's ImageFolder, LitData.

Each returns a function that goes through one shuffled epoch and leaves its workers (where there are any) for the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHUFFLE = 1_000  # samples in webdataset's shuffle buffer, as in its documents' examples


def webdataset_epoch(urls: Sequence[str], batch: int, workers: int) -> Callable[[], None]:
    """`WebDataset(urls).shuffle().decode().to_tuple().batched()`; with workers in a `WebLoader` that rebatches across them."""
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
        loader = wds.WebLoader(dataset, batch_size=None, num_workers=min(workers, len(urls)), persistent_workers=True)
        loader = loader.unbatched().shuffle(SHUFFLE).batched(batch)
    return lambda: _drain(loader)


def image_folder_epoch(folder: Path, batch: int, workers: int, samples: int) -> Callable[[], None]:
    """`ImageFolder(folder, transform=ToTensor())` in a shuffling DataLoader; `samples` of its files, drawn once."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(folder), transform=transforms.ToTensor())
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:samples].tolist()
    loader = DataLoader(
        Subset(dataset, chosen), batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: _drain(loader)


def litdata_write(images: np.ndarray, count: int, out: Path) -> None:
    """`litdata.optimize`: samples in chunks of 64 MB, one worker."""
    _quiet_litdata()
    import litdata

    np.save(out.with_suffix(".npy"), images)
    sample = _LitSample(str(out.with_suffix(".npy")))
    litdata.optimize(fn=sample, inputs=list(range(count)), output_dir=str(out), chunk_bytes="64MB", num_workers=1, verbose=False)


def litdata_epoch(folder: Path, batch: int, workers: int) -> Callable[[], None]:
    """`StreamingDataset(folder, shuffle=True)` in a `StreamingDataLoader`.

    `batch_decode=0` (one item at a time) is its documents' choice for large samples; the automatic one decodes forty for each.
    """
    _quiet_litdata()
    import litdata

    dataset = litdata.StreamingDataset(str(folder), shuffle=True, batch_decode=0)
    loader = litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0)
    return lambda: _drain(loader)


class _LitSample:
    """Sample i of an array file (a function that LitData's worker process can be handed)."""

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
