"""How many CPU threads a training uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from shardwave.models.networks.base import Network, parameters

SHARE = 64_000_000  # multiplications of a batch's forward pass that make another thread worth its cost


def useful_threads(network: Network, batch_size: int) -> int:
    """Return the number of CPU threads that speed up the training steps of a network.

    A network of images uses every thread that PyTorch has: a batch is billions of multiplications. A perceptron uses one per
    `SHARE` multiplications of a batch (its parameters times its samples), at least one; measured on two cores, two threads made a
    step of 11 million multiplications slower by half (2.7 ms against 1.8), one of 150 million as fast, one of 290 million faster
    by a quarter. The environment's OMP_NUM_THREADS, where it is set, is used instead.

    Args:
        network: What is trained.
        batch_size: Samples of a step on this device.

    Returns:
        At least 1, at most the threads that PyTorch has now.
    """
    available = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or network.images:
        return available
    return max(1, min(available, parameters(network) * batch_size // SHARE))


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let PyTorch use this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
