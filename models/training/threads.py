"""Number of CPU threads of a training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from shardwave.models.networks.base import Network, parameters

SHARE = 64_000_000  # multiplications in the forward pass of a batch, per thread


def useful_threads(network: Network, batch_size: int) -> int:
    """Return the number of CPU threads that speed up the training steps of a network.

    A network for images uses all threads of PyTorch: a batch takes billions of multiplications. A perceptron
    uses one thread per `SHARE` multiplications of a batch (parameters times samples). Measured on two cores,
    the second thread slows a step of 11 million multiplications down by half (2.7 ms instead of 1.8 ms), does
    not change the time of a step of 150 million, and speeds a step of 290 million up by a quarter. If the
    environment variable OMP_NUM_THREADS is set, all threads of PyTorch are used.

    Args:
        network: Network to train.
        batch_size: Samples per step on this device.

    Returns:
        At least 1, at most the current number of threads of PyTorch.
    """
    available = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or network.images:
        return available
    return max(1, min(available, parameters(network) * batch_size // SHARE))


@contextlib.contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Set the number of CPU threads of PyTorch inside a `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
