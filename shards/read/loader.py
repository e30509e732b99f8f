"""Batches of a view as torch tensors, gathered ahead by threads, in an order that (seed, epoch) alone decides."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from shardwave.shards.read.sampler import Order
from shardwave.shards.read.shardset import View

Batch = dict[str, torch.Tensor]


class Source(Protocol):
    """What a loader takes batches from: a view that `Gatherer` reads, or a resident copy."""

    ahead: bool  # whether fetching is worth a thread

    def __len__(self) -> int: ...

    def fetch(self, rows: np.ndarray) -> Batch:
        """The samples `rows` (int64 [batch]) as {field: [batch, ...], "cls", "clip", "index": int64 [batch]}."""
        ...


class Gatherer:
    """Gathers batches from a view into host memory that is reused as soon as nobody holds the batch any more."""

    ahead = True

    def __init__(self, view: View, fields: Sequence[str], *, pin: bool = False):
        self.view = view
        self.fields = tuple(fields)
        self.pin = pin  # page-locked, for asynchronous copies to a GPU
        self._buffers: dict[tuple[Any, ...], list[np.ndarray]] = {}
        self._taking = threading.Lock()

    def __len__(self) -> int:
        return len(self.view)

    def fetch(self, rows: np.ndarray) -> Batch:
        """See `Source`."""
        batch: Batch = {}
        for name in self.fields:
            field = self.view.set.fields[name]
            batch[name] = self._empty((len(rows), *field["shape"]), field["dtype"])
        self.view.gather(rows, self.fields, out={name: tensor.numpy() for name, tensor in batch.items()})
        batch["cls"] = torch.from_numpy(self.view.cls[rows])
        batch["clip"] = torch.from_numpy(self.view.clip[rows])
        batch["index"] = torch.from_numpy(rows.copy())
        return batch

    def _empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Uninitialised memory: fresh pages cost as much as the copy itself, so buffers come back when their tensors are gone."""
        if self.pin:  # torch keeps page-locked memory by itself, and knows when a copy to the device still needs it
            return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        with self._taking:
            buffers = self._buffers.setdefault((shape, dtype), [])
            for i in range(len(buffers)):
                if _references(buffers, i) == _IDLE:
                    return torch.from_numpy(buffers[i])
            buffer = np.empty(shape, dtype)
            if len(buffers) < 16:
                buffers.append(buffer)
            return torch.from_numpy(buffer)


def _references(items: list[Any], i: int) -> int:
    return sys.getrefcount(items[i])


_IDLE = _references([np.empty(0)], 0)  # of an array that nothing but its list holds


class Loader:
    """Iterates batches {field: [batch, ...], "cls": int64, "clip": int64, "index": int64} of one epoch (see `set_epoch`).

    `view`: a View, or any Source (Resident). The batch size is per rank; order and padding are those of `shardwave.shards.read.sampler.Order`, by
    default with padding where it is shuffled. `prefetch` batches are gathered ahead by `threads` threads; the state counts those
    handed out.
    """

    def __init__(
        self,
        view: View | Source,
        batch_size: int,
        *,
        fields: Sequence[str] = ("npy",),
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pad: bool | None = None,
        prefetch: int = 2,
        threads: int = 1,
        pin: bool = False,
    ):
        self.source: Source = Gatherer(view, fields, pin=pin) if isinstance(view, View) else view
        self.order = Order(len(self.source), batch_size, shuffle, seed, rank, world_size, shuffle if pad is None else pad)
        self.prefetch = prefetch if self.source.ahead else 0
        self.threads = threads
        self.epoch = 0
        self.wait_seconds = 0.0  # time the consumer waited for batches, over all epochs
        self._consumed = 0  # batches of this epoch
        self._resumed = False

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration starts; a state that was loaded in the middle of this very epoch stands."""
        if epoch != self.epoch:
            self._consumed, self._resumed = 0, False
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Where the iteration stands: {epoch, batches consumed, seed, samples, global batch}."""
        order = self.order
        return {"epoch": self.epoch, "batches": self._consumed, "seed": order.seed, "samples": order.samples,
                "global_batch": order.batch_size * order.world_size}  # fmt: skip

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on where `state_dict` was taken; raises ValueError where that was another order."""
        mine = {**self.state_dict(), "epoch": state["epoch"], "batches": state["batches"]}
        if mine != state:
            raise ValueError(f"the state is of another order: it has {state}, this loader {mine}")
        self.epoch, self._consumed, self._resumed = state["epoch"], state["batches"], True

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed:
            self._consumed = 0
        self._resumed = False
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        if isinstance(self.source, Gatherer):
            self.source.view.check_files()
        permutation = self.order.epoch(self.epoch)
        rows = (self.order.batch(permutation, number) for number in range(self._consumed, len(self)))
        for batch in self._ahead(rows) if self.prefetch else self._timed(rows):
            self._consumed += 1
            yield batch

    def _timed(self, rows: Iterator[np.ndarray]) -> Iterator[Batch]:
        for each in rows:
            started = time.perf_counter()
            batch = self.source.fetch(each)
            self.wait_seconds += time.perf_counter() - started
            yield batch

    def _ahead(self, rows: Iterator[np.ndarray]) -> Iterator[Batch]:
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.threads, "gather") as pool:
            try:
                for each in rows:
                    pending.append(pool.submit(self.source.fetch, each))
                    if len(pending) > self.prefetch:
                        yield self._next(pending)
                while pending:
                    yield self._next(pending)
            finally:
                for future in pending:
                    future.cancel()

    def _next(self, pending: deque[Future[Batch]]) -> Batch:
        started = time.perf_counter()
        batch = pending.popleft().result()
        self.wait_seconds += time.perf_counter() - started
        return batch
