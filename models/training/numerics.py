"""Policy of PyTorch's numerics on GPUs: TF32 and the choice of cuDNN's algorithms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# Products of float32 are computed with all 24 bits; `--precision bf16-mixed` is the faster choice. cuDNN
# chooses deterministic algorithms by rules instead of measurements, so that a training can be repeated.
POLICY: dict[str, str | bool] = {
    "float32_matmul_precision": "highest",
    "cudnn_allow_tf32": False,
    "cudnn_benchmark": False,
    "cudnn_deterministic": True,
}


@contextlib.contextmanager
def fixed_numerics() -> Iterator[None]:
    """Apply `POLICY` inside a `with` block or a decorated function, and restore the former flags."""
    before = current()
    _set(POLICY)
    try:
        yield
    finally:
        _set(before)


def current() -> dict[str, str | bool]:
    """Return the flags of this process, with the names of `POLICY`."""
    import torch  # imported late: a search records the policy without torch

    cudnn = torch.backends.cudnn
    return {
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allow_tf32": cudnn.allow_tf32,
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_deterministic": cudnn.deterministic,
    }


def _set(flags: dict[str, str | bool]) -> None:
    import torch

    torch.set_float32_matmul_precision(str(flags["float32_matmul_precision"]))
    torch.backends.cudnn.allow_tf32 = bool(flags["cudnn_allow_tf32"])
    torch.backends.cudnn.benchmark = bool(flags["cudnn_benchmark"])
    torch.backends.cudnn.deterministic = bool(flags["cudnn_deterministic"])
