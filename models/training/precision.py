"""Numerical precision of trainings, by Lightning's names."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import torch

from shardwave.models.training.config import TrainConfig

DTYPES = {  # dtype of the weights
    "32-true": torch.float32,
    "bf16-mixed": torch.float32,
    "16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "16-true": torch.float16,
    "64-true": torch.float64,
}
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def resolve(precision: str, device: torch.device) -> str:
    """Return a precision other than "auto".

    Args:
        precision: A key of `DTYPES`, which is returned unchanged, or "auto".
        device: Device of the network. "auto" selects "bf16-mixed" for a GPU that computes in bfloat16,
            otherwise "32-true".
    """
    if precision != "auto":
        return precision
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if fast else "32-true"


def resolved(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return `config` with the precision that "auto" selects for a device (see `resolve`)."""
    return dataclasses.replace(config, precision=resolve(config.precision, device))


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context of a precision.

    Args:
        precision: Name of Lightning's precision, a key of `DTYPES`.
        device: Device of the network.
    """
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
