from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardwave.common.errors import ShardwaveError
from shardwave.shards.read.loader import Loader
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.resident import Resident, available, fits, size
from shardwave.shards.read.sampler import Order
from shardwave.shards.read.shardset import View
from tests.shards.read.test_shardset import images, write_images


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    return images(101)


@pytest.fixture(scope="module")
def view(array: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> View:
    return write_images(tmp_path_factory.mktemp("sets") / "images", array).view("train")


def indices(loader: Loader) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_hold_what_the_order_says(view: View, array: np.ndarray, prefetch: int, threads: int) -> None:
    loader = Loader(view, 8, shuffle=True, seed=4, prefetch=prefetch, threads=threads)
    order = Order(101, 8, True, 4)
    for epoch in (0, 3):
        loader.set_epoch(epoch)
        permutation = order.epoch(epoch)
        seen = 0
        for number, batch in enumerate(loader):
            rows = order.batch(permutation, number)
            assert (batch["index"].numpy() == rows).all() and batch["index"].dtype == torch.int64
            assert (batch["npy"].numpy() == array[rows]).all() and batch["npy"].dtype == torch.uint8
            assert (batch["cls"].numpy() == rows % 3).all() and (batch["clip"].numpy() == 1000 + rows).all()
            seen += 1
        assert seen == len(loader) == 13


def test_evaluation_goes_in_order_and_neither_repeats_nor_drops(view: View) -> None:
    assert list(itertools.chain(*indices(Loader(view, 16, shuffle=False)))) == list(range(101))
    ranks = [
        list(itertools.chain(*indices(Loader(view, 4, shuffle=False, rank=rank, world_size=3))))
        for rank in range(3)
    ]
    assert sorted(itertools.chain(*ranks)) == list(range(101))


def test_ranks_and_threads_share_one_global_order(view: View) -> None:
    whole = indices(Loader(view, 12, shuffle=True, seed=1))
    ranks = [
        indices(
            Loader(view, 4, shuffle=True, seed=1, rank=rank, world_size=3, threads=rank + 1, prefetch=rank)
        )
        for rank in range(3)
    ]
    joined = [sum(parts, []) for parts in zip(*ranks, strict=True)]
    assert joined[:-1] == whole[:-1] and joined[-1][: len(whole[-1])] == whole[-1]
    assert (
        len(joined[-1]) == 6 and joined[-1][5] == whole[0][0]
    )  # five are left for three ranks: the first is repeated


def test_batches_that_are_kept_stay_what_they_are(view: View, array: np.ndarray) -> None:
    """Memory is reused only when nobody holds it."""
    loader = Loader(view, 4, shuffle=True, seed=2)
    kept = list(loader)
    views = [batch["npy"][1:2].numpy() for batch in kept]
    rows = [batch["index"] for batch in kept]
    del kept
    loader.set_epoch(1)
    again = list(loader)
    assert all((found == array[row[1:2]]).all() for found, row in zip(views, rows, strict=True))
    assert all((batch["npy"].numpy() == array[batch["index"]]).all() for batch in again)


def test_memory_of_batches_that_are_gone_is_reused(view: View) -> None:
    places = {batch["npy"].data_ptr() for batch in Loader(view, 8, shuffle=True)}
    assert len(places) <= 6  # of 13 batches: those ahead, the one at hand, the last and smaller one


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("consumed", [0, 1, 6, 12, 13])
def test_the_state_resumes_at_the_exact_sample(view: View, prefetch: int, consumed: int) -> None:
    loader = Loader(view, 8, shuffle=True, seed=7, prefetch=prefetch)
    loader.set_epoch(2)
    expected = indices(loader)
    iterator = iter(loader)
    for _ in range(consumed):
        next(iterator)
    state = loader.state_dict()  # counts what was consumed, not what was prefetched
    assert state == {"epoch": 2, "batches": consumed, "seed": 7, "samples": 101, "global_batch": 8}
    del iterator
    other = Loader(view, 8, shuffle=True, seed=7, prefetch=prefetch)
    other.load_state_dict(state)
    other.set_epoch(2)
    assert indices(other) == expected[consumed:]
    assert indices(other) == expected  # only the first iteration after loading is a rest
    other.load_state_dict(state)
    other.set_epoch(3)  # another epoch starts at its beginning
    assert other.state_dict()["batches"] == 0 and len(indices(other)) == 13


def test_a_state_passes_between_numbers_of_ranks(view: View) -> None:
    one = Loader(view, 12, shuffle=True, seed=7)
    next(iter(one))
    two = Loader(view, 6, shuffle=True, seed=7, rank=1, world_size=2)
    two.load_state_dict(one.state_dict())
    assert next(iter(two))["index"].tolist() == indices(one)[1][6:]
    with pytest.raises(ValueError, match="of another order"):
        Loader(view, 6, shuffle=True, seed=7).load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="of another order"):
        Loader(view, 12, shuffle=True, seed=8).load_state_dict(one.state_dict())


def test_ending_early_leaves_nothing_running(view: View) -> None:
    import threading

    for _ in range(3):
        for batch in Loader(view, 4, shuffle=True, prefetch=4, threads=2):
            assert len(batch["cls"]) == 4
            break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gather")]


def test_all_threads_read_at_a_time(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    together, gather = threading.Barrier(4), type(view).gather

    def wait(self: View, *args: Any, **kwargs: Any) -> Any:
        together.wait(60)  # returns when four threads have come
        return gather(self, *args, **kwargs)

    monkeypatch.setattr(type(view), "gather", wait)
    assert len(list(Loader(view, 26, shuffle=True, prefetch=1, threads=4))) == 4


def test_waiting_is_measured(view: View) -> None:
    loader = Loader(view, 8, shuffle=True)
    list(loader)
    assert loader.wait_seconds > 0


def test_a_shard_that_vanished_is_named_when_an_epoch_starts(tmp_path: Path) -> None:
    write_images(tmp_path / "set", images(20))
    loader = Loader(open_set(tmp_path / "set").view("train"), 4, shuffle=True)
    list(loader)
    (tmp_path / "set" / "train-full-0001.tar").unlink()
    with pytest.raises(ShardwaveError, match="train-full-0001.tar: the shard is missing"):
        list(loader)


def test_resident_batches_are_those_from_disk(view: View) -> None:
    resident = Resident(view, "cpu")
    for shuffle in (True, False):
        mine = Loader(resident, 16, shuffle=shuffle, seed=3)
        disk = Loader(view, 16, shuffle=shuffle, seed=3)
        for one, other in zip(mine, disk, strict=True):
            assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_what_does_not_fit_is_not_made_resident(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    assert size(view) == 101 * (16 * 24 + 16)
    assert available("cpu") > 1e8 and fits(view, "cpu")
    monkeypatch.setattr("shardwave.shards.read.resident.available", lambda device: 10_000)
    assert not fits(view, "cpu")
    with pytest.raises(ShardwaveError, match="do not fit into"):
        Resident(view, "cpu")


@pytest.mark.gpu
def test_resident_on_a_gpu(view: View) -> None:
    resident = Resident(view, "cuda")
    for one, other in zip(
        Loader(resident, 16, shuffle=True, seed=3),
        Loader(view, 16, shuffle=True, seed=3, pin=True),
        strict=True,
    ):
        assert one["npy"].is_cuda and other["npy"].is_pinned()
        assert all(torch.equal(one[name].cpu(), other[name]) for name in one)
