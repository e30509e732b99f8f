from __future__ import annotations

import io
import re

import numpy as np
import pytest

from shardwave.shards.format import layout


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("blues/blues.00000.wav", "000007_blues-00000"),
        ("a b/Für Elise (live).mp3", "000007_Fur-Elise-live"),
        ("日本/音.wav", "000007"),
        (".hidden", "000007_hidden"),
        ("x/" + "long" * 50 + ".wav", "000007_" + "long" * 10),
        ("x/..wav", "000007"),
    ],
)
def test_keys_are_safe(path: str, key: str) -> None:
    assert layout.clip_key(7, path) == key
    assert re.fullmatch(r"[A-Za-z0-9_-]+", layout.slice_key(key, 3))


def test_equal_base_names_and_slices_never_collide() -> None:
    keys = [
        layout.clip_key(number, path)
        for number, path in enumerate(["a/x.wav", "b/x.wav", "b/x.ogg", "b/x_s001.wav"])
    ]
    every = keys + [layout.slice_key(key, i) for key in keys for i in range(3)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (512, 512)), ("float32", (230,)), ("float16", (4096, 4, 4)), ("int64", ())]
)
def test_numpy_reads_the_header(dtype: str, shape: tuple[int, ...]) -> None:
    header = layout.npy_header(dtype, shape)
    array = (np.arange(np.prod(shape, dtype=int)) % 200).astype(dtype).reshape(shape)
    assert len(header) == layout.NPY_HEADER
    read = np.load(io.BytesIO(header + array.tobytes()))
    assert read.dtype == array.dtype and read.shape == shape and (read == array).all()


def test_shard_names() -> None:
    assert layout.SHARD_FILE.fullmatch(layout.shard_name("fold1", "slice", 12) + ".tar")
    assert not layout.SHARD_FILE.fullmatch("../train-full-0000.tar")
    assert layout.TEMPORARY.fullmatch(".train-full-0000.tar.123.tmp") and not layout.TEMPORARY.fullmatch(
        ".notes.123.tmp"
    )
