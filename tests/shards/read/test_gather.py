from __future__ import annotations

import numpy as np
import pytest

from shardwave.shards.read.gather import copy_rows


@pytest.mark.parametrize("row", [1, 7, 64, 4096, 262_144])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_are_copied_from_anywhere(row: int, dtype: str) -> None:
    source = np.random.default_rng(0).integers(0, 100, (20, row + 3)).astype(dtype)
    chosen = np.array([3, 19, 0, 3])
    out = np.full((6, row), 101, dtype)
    copy_rows(source.ctypes.data + chosen * source.strides[0], out[1:5])
    assert (out[1:5] == source[chosen, :row]).all() and (out[[0, 5]] == 101).all()


def test_nothing_is_copied_where_shapes_do_not_fit() -> None:
    source = np.zeros((4, 8), np.uint8)
    addresses = np.full(4, source.ctypes.data)
    copy_rows(addresses[:0], np.empty((0, 8), np.uint8))
    for out in (np.empty((3, 8), np.uint8), np.empty((8, 4), np.uint8).T):
        with pytest.raises(ValueError, match="C-contiguous, with one row per address"):
            copy_rows(addresses, out)
