"""Write a shard: a tar, its field index and DALI's index, under temporary names until all are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from shardwave.shards.format.index import Index, dali_index
from shardwave.shards.format.layout import DALI_INDEX, INDEX, TAR, npy_header, shard_name
from shardwave.shards.format.manifest import ShardEntry
from shardwave.shards.format.tar_writer import TarWriter

Fields = Mapping[str, tuple[str, tuple[int, ...]]]  # array field -> (dtype, shape)


class ShardWriter:
    """Writes the samples of one shard. Call `add` for each sample, then `close`, then `publish`.

    Args:
        folder: Folder of the set.
        split: Split of the samples.
        view: View of the samples.
        index: Number of the shard.
        fields: Type and shape of each array field.
    """

    def __init__(self, folder: Path, split: str, view: str, index: int, fields: Fields) -> None:
        self.folder = folder
        self.view = view
        self.stem = shard_name(split, view, index)
        self.samples = 0
        self._fields = dict(fields)
        self._headers = {name: npy_header(dtype, shape) for name, (dtype, shape) in self._fields.items()}
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
        """Append a sample.

        Args:
            key: Key of the sample, unique in the set.
            cls: Class index, -1 if unlabelled.
            clip: Number of the clip.
            meta: The json field.
            arrays: The array fields, with the declared types and shapes.

        Raises:
            ValueError: An array has another type or shape than declared.
        """
        for name in self._order:
            if name == "cls":
                position = self._tar.add(f"{key}.cls", str(cls).encode())
            elif name == "json":
                position = self._tar.add(f"{key}.json", json.dumps(meta).encode())
            else:
                array = arrays[name]
                dtype, shape = self._fields[name]
                if array.dtype != dtype or array.shape != shape:
                    raise ValueError(
                        f"{key}: field {name} must be {dtype} {shape}, got {array.dtype} {array.shape}"
                    )
                data = np.ascontiguousarray(array).data.cast("B")
                position = self._tar.add(f"{key}.{name}", data, self._headers[name])
            self._positions[name].append(position)
        self._cls.append(cls)
        self._clip.append(clip)
        self._keys.append(key)
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
