from __future__ import annotations

import numpy as np
import pytest

from shardwave.shards.read.sampler import Order


def batches(
    samples: int, batch_size: int, world_size: int, *, epoch: int = 0, shuffle: bool = True, pad: bool = True
) -> list[list[np.ndarray]]:
    """[rank][batch] -> samples."""
    made = []
    for rank in range(world_size):
        order = Order(samples, batch_size, shuffle, 5, rank, world_size, pad)
        permutation = order.epoch(epoch)
        made.append([order.batch(permutation, number) for number in range(len(order))])
    return made


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 64, 101])
@pytest.mark.parametrize(("batch_size", "world_size"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)])
def test_evaluation_sees_every_sample_once(samples: int, batch_size: int, world_size: int) -> None:
    made = batches(samples, batch_size, world_size, shuffle=False, pad=False)
    seen = np.concatenate([batch for rank in made for batch in rank])
    assert sorted(seen.tolist()) == list(range(samples))
    sizes = [sum(map(len, rank)) for rank in made]
    assert max(sizes) - min(sizes) <= batch_size and all(len(batch) for rank in made for batch in rank)


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 64, 101])
@pytest.mark.parametrize(("batch_size", "world_size"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)])
def test_training_pads_over_ranks_from_the_start(samples: int, batch_size: int, world_size: int) -> None:
    made = batches(samples, batch_size, world_size)
    permutation = Order(samples, 1, True, 5).epoch(0)
    assert len({tuple(map(len, rank)) for rank in made}) == 1  # every rank has the same batches
    joined = np.concatenate(
        [np.concatenate([rank[number] for rank in made]) for number in range(len(made[0]))]
    )
    assert (joined[:samples] == permutation).all()
    assert len(joined) - samples < world_size
    assert (joined[samples:] == np.resize(permutation, len(joined) - samples)).all()


def test_the_global_order_is_the_same_for_any_number_of_ranks() -> None:
    def order(batch_size: int, world_size: int) -> list[list[int]]:
        made = batches(96, batch_size, world_size, epoch=3)
        return [np.concatenate([rank[number] for rank in made]).tolist() for number in range(len(made[0]))]

    assert order(8, 1) == order(4, 2) == order(2, 4) == order(1, 8)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    one = Order(1000, 32, True, 0)
    assert (one.epoch(1) == Order(1000, 7, True, 0).epoch(1)).all()
    assert (one.epoch(1) != one.epoch(2)).mean() > 0.9
    assert (one.epoch(1) != Order(1000, 32, True, 1).epoch(1)).mean() > 0.9
    assert (np.sort(one.epoch(9)) == np.arange(1000)).all()


def test_every_place_is_equally_likely() -> None:
    places = np.array([np.argsort(Order(50, 1, True, 3).epoch(epoch))[0] for epoch in range(2000)])
    counts = np.bincount(places, minlength=50)
    assert ((counts - 40) ** 2 / 40).sum() < 90  # chi-square, 49 degrees of freedom: p = 0.0003


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Order(5, 0, True, 0)
    with pytest.raises(ValueError, match="rank must lie between 0 and world_size - 1 = 1, got 2"):
        Order(5, 1, True, 0, 2, 2)
