"""Lightning's names of precisions, for networks that run without a Trainer."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

DTYPES = {  # dtype of the weights
    "32-true": torch.float32,
    "bf16-mixed": torch.float32,
    "16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "16-true": torch.float16,
    "64-true": torch.float64,
}
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context of a precision.

    Args:
        precision: Name of Lightning's precision, a key of `DTYPES`.
        device: Device of the network.
    """
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
