"""A copy of a view in the memory of a GPU or of the host, from which batches are indexed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import numpy as np
import torch

from shardwave.common.errors import ShardwaveError
from shardwave.shards.read.loader import Batch
from shardwave.shards.read.view import View, row_bytes

_CHUNK = 64 << 20  # bytes gathered and copied at a time


class Resident:
    """Array fields of a view and its `cls` and `clip` columns as tensors on a device. A `loader.Source`.

    Args:
        view: The samples.
        device: Device of the tensors.
        fields: Array fields to copy.

    Attributes:
        tensors: The tensors by field, [samples, *shape of the field]; `cls` and `clip`: int64 [samples].

    Raises:
        ShardwaveError: The tensors do not fit into the free memory of the device.
    """

    ahead = False

    def __init__(
        self, view: View, device: str | torch.device = "cpu", fields: Sequence[str] = ("npy",)
    ) -> None:
        self.device = torch.device(device)
        needed, free = size(view, fields), available(self.device)
        if needed > free:
            raise ShardwaveError(
                f"{view.set.location}: {needed / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB free on "
                f"{self.device}: read from disk"
            )
        self.tensors: Batch = {}
        for name in fields:
            field = view.set.field(name)
            self.tensors[name] = torch.empty(
                (len(view), *field["shape"]),
                dtype=getattr(torch, field["dtype"]),
                device=self.device,
            )
        self.tensors["cls"] = torch.from_numpy(view.cls).to(self.device, copy=True)
        self.tensors["clip"] = torch.from_numpy(view.clip).to(self.device, copy=True)
        self._fill(view, fields)

    @classmethod
    def from_tensors(cls, tensors: Batch) -> Resident:
        """Return a copy that consists of existing tensors, see `tensors`."""
        copy = cls.__new__(cls)
        copy.device, copy.tensors = tensors["cls"].device, tensors
        return copy

    def __len__(self) -> int:
        return len(self.tensors["cls"])

    def fetch(self, rows: np.ndarray, spans: np.ndarray | None = None) -> Batch:
        """Return the batch of the samples `rows` (int64 [batch]) on the device, see `loader.Source.fetch`."""
        if spans is not None:
            raise ValueError(
                "the copy holds finished images: read other frames from the view or ResidentStrips"
            )
        index = torch.from_numpy(np.ascontiguousarray(rows))
        if self.device.type == "cuda":
            index = index.pin_memory().to(self.device, non_blocking=True)
        batch = {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}
        batch["index"] = index
        return batch

    def _fill(self, view: View, fields: Sequence[str]) -> None:
        for name in fields:
            target = self.tensors[name]
            rows = max(1, _CHUNK // max(1, target[:1].nbytes))
            for start in range(0, len(view), rows):
                chosen = np.arange(start, min(start + rows, len(view)))
                if self.device.type == "cpu":
                    view.gather(chosen, (name,), out={name: target[start : start + len(chosen)].numpy()})
                else:
                    target[start : start + len(chosen)].copy_(
                        torch.from_numpy(view.gather(chosen, (name,))[name])
                    )


def size(view: View, fields: Sequence[str] = ("npy",)) -> int:
    """Return the number of bytes of a resident copy of these fields."""
    declared = [view.set.field(name) for name in fields]
    row = sum(row_bytes(field) for field in declared)
    return (row + 16) * len(view)  # 16: `cls` and `clip`


def available(device: str | torch.device) -> int:
    """Return the free memory of a device, in bytes."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:  # Linux
        for line in file:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def fits(view: View, device: str | torch.device, fields: Sequence[str] = ("npy",)) -> bool:
    """Return whether a resident copy takes at most half of the free memory of a device.

    Args:
        view: The samples.
        device: Device of the copy.
        fields: Array fields to copy.
    """
    return size(view, fields) <= 0.5 * available(device)
