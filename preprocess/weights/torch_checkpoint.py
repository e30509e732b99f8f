"""Read the tensors of a PyTorch checkpoint without unpickling other objects."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals

from shardwave.common.errors import ShardwaveError


def read(data: bytes) -> dict[str, np.ndarray]:
    """Read a state dict.

    Only tensors, containers and NumPy scalars are unpickled (`weights_only=True`).

    Args:
        data: Content of the file: a state dict, or a tuple that begins with one.

    Returns:
        The tensors by name.

    Raises:
        ShardwaveError: The file is damaged, is no state dict, or needs other objects.
    """
    scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # NumPy 1 and 2
    allowed: list[Any] = [*names, np.dtype, *(type(np.dtype(kind)) for kind in ("int64", "float64"))]
    try:
        with safe_globals(allowed):
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of torch.load have no common base class
        raise ShardwaveError(f"the checkpoint is damaged ({type(error).__name__})") from error
    state = state[0] if isinstance(state, tuple) and state else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ShardwaveError("the checkpoint is not a state dict")
    return {str(name): value.contiguous().numpy() for name, value in state.items()}
