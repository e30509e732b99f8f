"""The synthetic set is one that the reader takes, and its measures are of what it holds."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from shardwave.bench import scale_set
from shardwave.shards.read.open_set import open_set


def test_a_small_synthetic_set_opens_like_a_built_one(tmp_path):
    scale_set.write_set(tmp_path, 1_000)
    opened = open_set(tmp_path)
    for view, per_clip in (("full", 1), ("slice", scale_set.SLICES)):
        both = opened.view(["train", "val"], view)
        assert (np.bincount(both.clip) == np.full(1_000, per_clip)).all() and (
            both.cls == both.clip % 10
        ).all()
    assert len(opened.manifest["splits"]["train"]["slice"]) == 9  # 800 clips of 2.65 MB in shards of 256 MB
    # in a new process: the peak memory of this one is that of all tests before
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seen = pool.submit(scale_set.measure, tmp_path, "slice").result()
    assert seen["samples"] == 8_000 and 0 < seen["peak"] < 2_000


def test_the_plan_of_a_build():
    assert scale_set.measure_build(1_000).keys() == {"plan", "peak", "draw"}
