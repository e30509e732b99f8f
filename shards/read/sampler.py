"""Order of the samples in an epoch, determined by seed and epoch, and each rank's part of it."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Order:
    """Assigns the samples of an epoch to the batches of one rank.

    A global batch consists of the next `batch_size * world_size` samples of the epoch's permutation; rank r
    reads its r-th part. The last global batch may be smaller. With `pad`, samples from the start of the epoch
    are appended to it until all ranks read the same number of samples. Without `pad`, the parts differ by at
    most one sample, and a rank whose part is empty has one batch less.

    Args:
        samples: Number of samples.
        batch_size: Samples of a batch, per rank.
        shuffle: Whether each epoch has its own random permutation; if not, the samples keep their order.
        seed: Seed of the permutations.
        rank: Rank of this process, from 0.
        world_size: Number of ranks.
        pad: Whether to repeat samples in a smaller last batch.
        balance: Class of each sample, int64 [samples], to draw equally many samples of every class; None:
            every sample once. Samples of a class are drawn in turn, without replacement until all are drawn.

    Raises:
        ValueError: `batch_size` is below 1, or `rank` is not below `world_size`.
    """

    samples: int
    batch_size: int
    shuffle: bool
    seed: int
    rank: int = 0
    world_size: int = 1
    pad: bool = True
    balance: np.ndarray | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank must lie between 0 and world_size - 1 = {self.world_size - 1}, got {self.rank}"
            )

    @property
    def _remainder(self) -> int:
        return self.samples % (self.batch_size * self.world_size)

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch."""
        complete = self.samples // (self.batch_size * self.world_size)
        return complete + (self._remainder > (0 if self.pad else self.rank))

    def epoch(self, epoch: int) -> np.ndarray:
        """Return the permutation of an epoch: int32 [samples], or int64 from 2**31 samples on."""
        rows = np.arange(self.samples, dtype=np.int32 if self.samples < 2**31 else np.int64)
        if self.balance is not None:
            return self._balanced(epoch).astype(rows.dtype)
        if self.shuffle:  # the order does not depend on the type
            np.random.Generator(np.random.PCG64([self.seed, epoch])).shuffle(rows)
        return rows

    def _balanced(self, epoch: int) -> np.ndarray:
        """Return the samples of an epoch with equally many of every class (the first classes: one more)."""
        assert self.balance is not None
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        classes = np.unique(self.balance)
        share, more = divmod(self.samples, len(classes))
        drawn = []
        for number, each in enumerate(classes):
            members = np.flatnonzero(self.balance == each)
            count = share + (number < more)
            rounds = -(-count // len(members))
            drawn.append(np.concatenate([generator.permutation(members) for _ in range(rounds)])[:count])
        return generator.permutation(np.concatenate(drawn))

    def batch(self, permutation: np.ndarray, number: int) -> np.ndarray:
        """Return the samples of one batch of this rank.

        Args:
            permutation: The permutation of the epoch (see `epoch`). [samples].
            number: Number of the batch, from 0.

        Returns:
            Indices of the samples. int64 [batch].
        """
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
