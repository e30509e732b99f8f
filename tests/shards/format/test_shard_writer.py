from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from shardwave.shards.format import tar_writer
from shardwave.shards.format.shard_writer import Row, ShardWriter

SIDE = 300  # pixels; longer than what is collected over several samples
ROWS = [
    Row(f"{i:06d}", i % 3, i // 4, {"slice": i}, {"npy": np.full((SIDE, SIDE), i, np.uint8)})
    for i in range(8)
]


def test_the_slices_of_a_clip_are_one_write_and_one_update_of_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More would hand the interpreter lock to other threads more often; the bytes are the same."""
    calls: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self._hash = blake3()

        def update(self, data: Any) -> None:
            calls.append(len(data))
            self._hash.update(data)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    monkeypatch.setattr(tar_writer, "blake3", Counting)
    entries = []
    for name, step in (("single", 1), ("clips", 4)):
        (tmp_path / name).mkdir()
        writer = ShardWriter(tmp_path / name, "train", "slice", 0, {"npy": ("uint8", (SIDE, SIDE))})
        for start in range(0, len(ROWS), step):
            before = len(calls)
            writer.add_rows(ROWS[start : start + step])
            assert len(calls) == before + 1 and calls[-1] >= step * SIDE**2
        entries.append(writer.close())
        writer.publish()
    assert entries[0] == entries[1]
    stem = "train-slice-0000"
    for suffix in (".tar", ".index", ".idx"):
        assert (tmp_path / "single" / (stem + suffix)).read_bytes() == (
            tmp_path / "clips" / (stem + suffix)
        ).read_bytes()
