from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.shards.format import index


def made(samples: int = 5) -> index.Index:
    start = 512 + 4096 * np.arange(samples)
    offset = {"npy": start, "cls": start + 1536, "json": start + 2560}
    length = {"npy": np.full(samples, 1024), "cls": np.ones(samples, np.int64), "json": np.full(samples, 100)}
    return index.Index(
        4096 * samples + 1024, "ab" * 32, np.arange(samples) % 3 - 1, 7 * np.arange(samples), offset, length
    )


@pytest.mark.parametrize("samples", [0, 1, 5, 1000])
def test_what_is_written_is_read(tmp_path: Path, samples: int) -> None:
    (tmp_path / "a.index").write_bytes(made(samples).to_bytes())
    found, expected = index.read(tmp_path / "a.index"), made(samples)
    assert (found.tar_bytes, found.tar_blake3, len(found)) == (
        expected.tar_bytes,
        expected.tar_blake3,
        samples,
    )
    assert (found.cls == expected.cls).all() and (found.clip == expected.clip).all()
    for name in expected.offset:
        assert (found.offset[name] == expected.offset[name]).all() and (
            found.length[name] == expected.length[name]
        ).all()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = made().to_bytes()
    for place in (*range(64), *range(64, len(data), 7)):
        (tmp_path / "a.index").write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(ShardwaveError, match="a.index"):
            index.read(tmp_path / "a.index")


@pytest.mark.parametrize("keep", [0, 4, 20, -8, -1])
def test_a_truncated_index_is_found(tmp_path: Path, keep: int) -> None:
    (tmp_path / "a.index").write_bytes(made().to_bytes()[:keep])
    with pytest.raises(ShardwaveError, match="a.index"):
        index.read(tmp_path / "a.index")


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (512, 10**9), (2**62, 2**62), (1024, -5), (-5, 600)])
def test_an_index_that_points_outside_is_refused(tmp_path: Path, offset: int, length: int) -> None:
    bad = made(1)
    bad.offset["npy"][0], bad.length["npy"][0] = offset, length
    (tmp_path / "a.index").write_bytes(bad.to_bytes())
    with pytest.raises(ShardwaveError, match="points outside its tar"):
        index.read(tmp_path / "a.index")
