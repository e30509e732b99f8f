"""The interface of a view: random access to samples by their index."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shardwave.shards.format.manifest import Field, ShardEntry, StoredField
from shardwave.shards.format.records import SampleMeta

JOIN = "+"  # between the names of joined fields


class OpenedSet(Protocol):
    """The part of `ShardSet` that its views use."""

    local: bool
    path: Path
    location: str
    set_id: str
    classes: list[str]
    fields: dict[str, Field]  # of the samples of the views
    stored: dict[str, StoredField]  # of the samples of the shards

    def ensure_local(self, entries: Sequence[ShardEntry], suffix: str) -> None:
        """Fetch the files of some shards that are missing in `path`."""
        ...

    def field(self, name: str) -> Field:
        """Return type and shape of an array field, or of several vector fields joined by `+`."""
        ...


class View(ABC):
    """Random access to samples, in the order of the shards.

    Attributes:
        set: The set.
        cls: Class index of each sample, -1 if it has no label. int64 [samples].
        clip: Number of each sample's clip. int64 [samples].
    """

    set: OpenedSet
    cls: np.ndarray
    clip: np.ndarray

    def __len__(self) -> int:
        return len(self.cls)

    @property
    def readers(self) -> int:
        """Default number of threads of a `Loader`, which reads at least as many batches ahead."""
        return 1

    @property
    @abstractmethod
    def is_full(self) -> np.ndarray:
        """Whether each sample shows its full clip, not a slice. bool [samples]."""

    def gather(
        self,
        indices: np.ndarray | Sequence[int],
        fields: Sequence[str] = ("npy",),
        out: Mapping[str, np.ndarray] | None = None,
        spans: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Copy array fields of some samples into one array per field.

        Args:
            indices: Indices of the samples, in any order. [rows].
            fields: Names of the fields; several vector fields can be joined, see `ShardSet.field`.
            out: Arrays to write to, by field; by default they are allocated.
            spans: First frame and last frame + 1 of the images of a set of strips, in place of those of the
                samples. int64 [rows, 2].

        Returns:
            The arrays by field, [rows, *shape of the field].

        Raises:
            IndexError: An index is outside the view.
            UsageError: The set has no such array field.
            ValueError: An array of `out` has another shape or type than the field, or the samples have no
                such frames.
            ShardwaveError: A shard is missing, truncated or was changed.
        """
        rows = np.asarray(indices, np.int64)
        if len(rows) and rows.view(np.uint64).max() >= len(self):  # unsigned: a negative index is too large
            raise IndexError(
                f"indices must lie between 0 and {len(self) - 1}, got {rows.min()} to {rows.max()}"
            )
        gathered = {}
        for name in fields:
            declared = self.set.field(name)
            dtype, shape = np.dtype(declared["dtype"]), tuple(declared["shape"])
            target = np.empty((len(rows), *shape), dtype) if out is None else out[name]
            if target.shape != (len(rows), *shape) or target.dtype != dtype:
                raise ValueError(
                    f"out[{name!r}] must be {dtype} {(len(rows), *shape)}, got {target.dtype} {target.shape}"
                )
            if JOIN in name:
                parts = self.gather(rows, name.split(JOIN))
                gathered[name] = np.concatenate(list(parts.values()), axis=1, out=target)
                continue
            self._copy(rows, name, target, spans)
            gathered[name] = target
        return gathered

    @abstractmethod
    def _copy(self, rows: np.ndarray, name: str, target: np.ndarray, spans: np.ndarray | None) -> None:
        """Write an array field of the samples `rows`, which were checked, to `target`."""

    @abstractmethod
    def data(self, i: int, field: str) -> memoryview:
        """Return the bytes from which an array field of one sample is read, without copying them.

        Args:
            i: Index of the sample.
            field: Name of the array field.

        Returns:
            Memory of the mapped shard, without the NumPy header. In a set of strips, the field of all views
            of the clip.
        """

    @abstractmethod
    def meta(self, i: int) -> SampleMeta:
        """Return the json field of sample `i`.

        Raises:
            ShardwaveError: The field is damaged; the message names the shard.
        """

    @abstractmethod
    def key(self, i: int) -> str:
        """Return the key of sample `i`."""

    @abstractmethod
    def split_and_shard(self, i: int) -> tuple[str, str]:
        """Return the split of sample `i` and the file name of its shard."""

    @abstractmethod
    def check_files(self) -> None:
        """Check that every shard is still the file that was opened, without reading its contents.

        Readers call this at the start of each epoch. It detects shards that were replaced or rewritten. If a
        mapped shard is truncated during the epoch, the next access ends the process with SIGBUS. For a set at
        a URL, missing shards are fetched first.

        Raises:
            ShardwaveError: A shard is missing, has another size, or is not the file that was opened.
        """


def row_bytes(field: Field | StoredField) -> int:
    """Return the bytes of a sample of a field; of one with a varying length, those of one element of it."""
    lengths = (length for length in field["shape"] if length is not None)
    return np.dtype(field["dtype"]).itemsize * math.prod(lengths)


def mapped_array(data: memoryview, field: StoredField) -> np.ndarray:
    """Return the array whose bytes are `data`, without copying them.

    Args:
        data: Bytes of the array.
        field: Type and shape of the array; None in the shape is replaced by the length that fits.
    """
    values = np.frombuffer(data, field["dtype"])
    shape: list[Any] = [-1 if length is None else length for length in field["shape"]]
    if shape and shape[-1] == -1 and len(shape) > 1:  # stored in Fortran order
        return values.reshape(shape[::-1]).T
    return values.reshape(shape)
