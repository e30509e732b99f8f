"""Write a shard: a tar, its field index and DALI's index, under temporary names until all are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3

from shardwave.shards.format.index import Index, dali_index
from shardwave.shards.format.layout import DALI_INDEX, INDEX, TAR, npy_header, shard_name
from shardwave.shards.format.manifest import ShardEntry, is_fortran
from shardwave.shards.format.tar_writer import TarWriter

Fields = Mapping[str, tuple[str, tuple[int | None, ...]]]  # array field -> (dtype, shape), see `Field`


class Row(NamedTuple):
    """A sample to write."""

    key: str  # unique in the set
    cls: int  # class index, -1 if unlabelled
    clip: int  # number of the clip
    meta: Mapping[str, Any]  # the json field
    arrays: Mapping[str, np.ndarray]  # the array fields, with the declared types and shapes


class ShardWriter:
    """Writes the samples of one shard. Call `add` for all samples, then `close`, then `publish`.

    Args:
        folder: Folder of the set.
        split: Split of the samples.
        view: View of the samples, or `strip`.
        index: Number of the shard.
        fields: Type and shape of each array field.
    """

    def __init__(self, folder: Path, split: str, view: str, index: int, fields: Fields) -> None:
        self.folder = folder
        self.view = view
        self.stem = shard_name(split, view, index)
        self.samples = 0
        self._fields = dict(fields)
        self._order = [
            *(name for name in self._fields if name == "npy"),
            "cls",
            "json",
            *(name for name in self._fields if name != "npy"),
        ]
        self._tar = TarWriter(self._temporary(TAR))
        self._positions: dict[str, list[tuple[int, int]]] = {name: [] for name in self._order}
        self._cls: list[int] = []
        self._clip: list[int] = []
        self._keys: list[str] = []

    def add(
        self, key: str, cls: int, clip: int, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Append a sample, see `Row`.

        Raises:
            ValueError: An array has another type or shape than declared.
        """
        self.add_rows([Row(key, cls, clip, meta, arrays)])

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Append samples, such as the slices of a clip, with one write and one update of the digest.

        Args:
            rows: The samples.

        Raises:
            ValueError: An array has another type or shape than declared.
        """
        for row in rows:
            self._append(row)
        self._tar.flush()

    def _append(self, row: Row) -> None:
        for name in self._order:
            if name == "cls":
                position = self._tar.add(f"{row.key}.cls", str(row.cls).encode())
            elif name == "json":
                position = self._tar.add(f"{row.key}.json", json.dumps(row.meta).encode())
            else:
                array = row.arrays[name]
                dtype, shape = self._fields[name]
                if array.dtype != dtype or not fits(array.shape, shape):
                    raise ValueError(
                        f"{row.key}: field {name} must be {dtype} {shape}, got {array.dtype} {array.shape}"
                    )
                fortran = is_fortran(shape)
                header = npy_header(dtype, array.shape, fortran=fortran)
                data = np.ascontiguousarray(array.T if fortran else array).data.cast("B")
                position = self._tar.add(f"{row.key}.{name}", data, header)
            self._positions[name].append(position)
        self._cls.append(row.cls)
        self._clip.append(row.clip)
        self._keys.append(row.key)
        self.samples += 1

    def close(self) -> ShardEntry:
        """Complete the files under their temporary names; returns the shard's entry in the manifest."""
        size, digest = self._tar.close()
        columns = {
            name: np.array(positions, np.int64).reshape(-1, 2) for name, positions in self._positions.items()
        }
        index = Index(
            size,
            digest,
            np.array(self._cls, np.int64),
            np.array(self._clip, np.int64),
            {name: column[:, 0] for name, column in columns.items()},
            {name: column[:, 1] for name, column in columns.items()},
        )
        names = [[f"{key}.{name}" for name in self._order] for key in self._keys]
        files = {INDEX: index.to_bytes(), DALI_INDEX: dali_index(names, index)}
        for suffix, data in files.items():
            self._temporary(suffix).write_bytes(data)
        return {
            "file": self.stem + TAR,
            "samples": self.samples,
            "bytes": size,
            "blake3": digest,
            "index_blake3": blake3(files[INDEX]).hexdigest(),
            "idx_blake3": blake3(files[DALI_INDEX]).hexdigest(),
        }

    def publish(self) -> None:
        """Rename the files to their final names; call `close` before."""
        for suffix in (INDEX, DALI_INDEX, TAR):
            os.replace(self._temporary(suffix), self.folder / (self.stem + suffix))

    def abandon(self) -> None:
        """Remove the temporary files."""
        self._tar.abandon()
        for suffix in (INDEX, DALI_INDEX):
            self._temporary(suffix).unlink(missing_ok=True)

    def _temporary(self, suffix: str) -> Path:
        return self.folder / f".{self.stem}{suffix}.{os.getpid()}.tmp"


def fits(actual: tuple[int, ...], declared: Sequence[int | None]) -> bool:
    """Return whether the shape of an array is the declared one; a declared length None fits every length."""
    return len(actual) == len(declared) and all(
        length in (None, size) for size, length in zip(actual, declared, strict=True)
    )


def files_of(entry: ShardEntry) -> list[tuple[str, str]]:
    """Return (name, BLAKE3 digest) of each of the three files of a shard.

    Args:
        entry: Manifest entry of the shard.
    """
    stem = entry["file"].removesuffix(TAR)
    return [
        (stem + TAR, entry["blake3"]),
        (stem + INDEX, entry["index_blake3"]),
        (stem + DALI_INDEX, entry["idx_blake3"]),
    ]
