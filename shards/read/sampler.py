"""The order of samples, fixed by (seed, epoch) over the global batch; ranks take their share of each (DESIGN §3, order)."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Order:
    """Which samples each batch of one rank holds.

    A global batch is `batch_size * world_size` samples that follow each other in the epoch's permutation; rank r takes the r-th
    part of it. The last one is smaller: with `pad`, every rank takes equally many of it, and what is missing is repeated from the
    start of the epoch; without, the parts differ by at most one sample, and a rank whose part is empty has one batch less.
    """

    samples: int
    batch_size: int  # per rank
    shuffle: bool
    seed: int
    rank: int = 0
    world_size: int = 1
    pad: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1 = {self.world_size - 1}, got {self.rank}")

    @property
    def _rest(self) -> int:
        return self.samples % (self.batch_size * self.world_size)

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        whole = self.samples // (self.batch_size * self.world_size)
        return whole + (self._rest > (0 if self.pad else self.rank))

    def epoch(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch: [samples], int32 where that suffices."""
        rows = np.arange(self.samples, dtype=np.int32 if self.samples < 2**31 else np.int64)
        if self.shuffle:  # the same order, whichever the type
            np.random.Generator(np.random.PCG64([self.seed, epoch])).shuffle(rows)
        return rows

    def batch(self, permutation: np.ndarray, number: int) -> np.ndarray:
        """The samples of this rank's batch `number` under an epoch's permutation: int64 [batch]."""
        return self._batch(permutation, number).astype(np.int64)

    def _batch(self, permutation: np.ndarray, number: int) -> np.ndarray:
        start = number * self.batch_size * self.world_size
        part = permutation[start : start + self.batch_size * self.world_size]
        if len(part) < self.batch_size * self.world_size:
            share, more = divmod(len(part), self.world_size)
            if not self.pad:
                first = self.rank * share + min(self.rank, more)
                return part[first : first + share + (self.rank < more)]
            share += more > 0
            part = np.resize(np.concatenate([part, permutation]), share * self.world_size)
            return part[self.rank * share : (self.rank + 1) * share]
        return part[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
