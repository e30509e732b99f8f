"""What Lightning's names of precisions mean where a network runs without a Trainer."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

DTYPES = {  # of the weights
    "32-true": torch.float32,
    "bf16-mixed": torch.float32,
    "16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "16-true": torch.float16,
    "64-true": torch.float64,
}
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a network of this precision is called."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
