"""Batches of a view as torch tensors, prefetched by threads, in an order determined by seed and epoch."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from shardwave.shards.read.sampler import Order
from shardwave.shards.read.shardset import View

Batch = dict[str, torch.Tensor]
_Fetch = Callable[[np.ndarray], Batch]


class Source(Protocol):
    """Source of a loader's batches: `Gatherer` reads a view from disk, `Resident` holds it in memory."""

    ahead: bool  # whether prefetching by threads makes reading faster

    def __len__(self) -> int: ...

    def fetch(self, rows: np.ndarray, spans: np.ndarray | None = None) -> Batch:
        """Return a batch.

        Args:
            rows: Indices of the samples. int64 [batch].
            spans: Frames of the images of a set of strips, see `View.gather`. int64 [batch, 2].

        Returns:
            The array fields, [batch, *shape of the field], and `cls` (class index), `clip` (number of the
            clip) and `index` (index of the sample), each int64 [batch].
        """
        ...


class Gatherer:
    """Reads batches from a view into host memory, and reuses buffers whose batch is no longer referenced.

    Args:
        view: The samples.
        fields: Array fields to read.
        pin: Use page-locked memory, for asynchronous copies to a GPU.
    """

    ahead = True

    def __init__(self, view: View, fields: Sequence[str], *, pin: bool = False) -> None:
        self.view = view
        self.fields = tuple(fields)
        self.pin = pin
        self._buffers: dict[tuple[Any, ...], list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.view)

    def fetch(self, rows: np.ndarray, spans: np.ndarray | None = None) -> Batch:
        """Return the batch of the samples `rows` (int64 [batch]), see `Source.fetch`."""
        batch: Batch = {}
        for name in self.fields:
            field = self.view.set.field(name)
            batch[name] = self._empty((len(rows), *field["shape"]), field["dtype"])
        out = {name: tensor.numpy() for name, tensor in batch.items()}
        self.view.gather(rows, self.fields, out=out, spans=spans)
        batch["cls"] = torch.from_numpy(self.view.cls[rows])
        batch["clip"] = torch.from_numpy(self.view.clip[rows])
        batch["index"] = torch.from_numpy(rows.copy())
        return batch

    def _empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Return an uninitialized tensor. Buffers are reused: fresh pages cost as much time as the copy."""
        if self.pin:  # torch caches page-locked memory, and reuses it only after the copy to the device
            return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        with self._lock:
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


_IDLE = _references([np.empty(0)], 0)  # reference count of an array that only its list holds


class Loader:
    """Iterates over the batches of one epoch (see `set_epoch`), in the order of `sampler.Order`.

    A batch is a dict of tensors: the array fields [batch, *shape of the field], and `cls` (class index),
    `clip` (number of the clip) and `index` (index of the sample), each int64 [batch].

    Args:
        view: The samples: a view, or another `Source` such as `Resident`.
        batch_size: Samples of a batch, per rank.
        fields: Array fields to read from a view; another source has its own.
        shuffle: Shuffle the samples anew in each epoch.
        seed: Seed of the order.
        rank: Rank of this process, from 0.
        world_size: Number of ranks.
        pad: Repeat samples so that all ranks read the same number (see `Order`); None: the value of
            `shuffle`.
        prefetch: Number of batches that threads read ahead, at least one per thread; 0 reads them when they
            are needed.
        threads: Number of threads that read ahead; None: `View.readers`, one for finished images.
        pin: Use page-locked host memory, for asynchronous copies to a GPU.
        balance: Class of each sample, to draw equally many samples of every class (see `Order`).
        spans: Function of the epoch that returns the frames of each sample, int64 [samples, 2], in place of
            those of a view of strips, see `StripView.random_spans`.

    Attributes:
        wait_seconds: Time that the consumer waited for batches, over all epochs.
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
        threads: int | None = None,
        pin: bool = False,
        balance: np.ndarray | None = None,
        spans: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.source: Source = Gatherer(view, fields, pin=pin) if isinstance(view, View) else view
        self.order = Order(
            len(self.source),
            batch_size,
            shuffle,
            seed,
            rank,
            world_size,
            shuffle if pad is None else pad,
            balance,
        )
        self.threads = threads or (view.readers if isinstance(view, View) else 1)
        self.prefetch = max(prefetch, self.threads) if prefetch and self.source.ahead else 0
        self.spans = spans
        self.epoch = 0
        self.wait_seconds = 0.0
        self._consumed = 0  # batches of this epoch
        self._resumed = False

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. A state loaded in the middle of the same epoch is kept."""
        if epoch != self.epoch:
            self._consumed, self._resumed = 0, False
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the position of the iteration, for `load_state_dict`.

        Returns:
            `epoch`, `batches` (number of batches of the epoch that the iterator has yielded), and to identify
            the order `seed`, `samples` and `global_batch` (samples of a batch over all ranks).
        """
        order = self.order
        return {
            "epoch": self.epoch,
            "batches": self._consumed,
            "seed": order.seed,
            "samples": order.samples,
            "global_batch": order.batch_size * order.world_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the next iteration at the position of a state.

        Args:
            state: Return value of `state_dict`.

        Raises:
            ValueError: The state belongs to another seed, number of samples or global batch size.
        """
        expected = {**self.state_dict(), "epoch": state["epoch"], "batches": state["batches"]}
        if expected != state:
            raise ValueError(f"the state is of another order: it has {state}, this loader {expected}")
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
        drawn = None if self.spans is None else self.spans(self.epoch)

        def fetch(rows: np.ndarray) -> Batch:
            return self.source.fetch(rows) if drawn is None else self.source.fetch(rows, drawn[rows])

        for batch in self._ahead(fetch, rows) if self.prefetch else self._timed(fetch, rows):
            self._consumed += 1
            yield batch

    def _timed(self, fetch: _Fetch, rows: Iterator[np.ndarray]) -> Iterator[Batch]:
        for each in rows:
            started = time.perf_counter()
            batch = fetch(each)
            self.wait_seconds += time.perf_counter() - started
            yield batch

    def _ahead(self, fetch: _Fetch, rows: Iterator[np.ndarray]) -> Iterator[Batch]:
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.threads, "gather") as pool:
            try:
                for each in rows:
                    pending.append(pool.submit(fetch, each))
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
