"""A check, without a GPU, that a computation mixes no tensors of two devices."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIES = ("aten._to_copy", "aten.copy_")


class OneDevice(TorchDispatchMode):
    """Raises RuntimeError for an operation on tensors of two devices, which a GPU refuses.

    PyTorch itself refuses to mix the CPU with its device without memory, `meta`, in some operations only.
    As on a GPU, a scalar may be on the CPU.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        devices = {each.device.type for each in tensors if each.ndim}
        if len(devices) > 1 and not str(func).startswith(COPIES):
            raise RuntimeError(f"{func} mixes the devices {sorted(devices)}")
        return result
