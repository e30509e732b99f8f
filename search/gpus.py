"""GPUs that the trials of a search may use, and the number of trials that fit on them."""

from __future__ import annotations

import os

from shardwave.common.errors import UsageError


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, each as a value for `CUDA_VISIBLE_DEVICES`.

    PyTorch counts them by NVML, without creating a CUDA context.
    """
    import torch

    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = range(count) if visible is None else visible.split(",")[:count]
    return [str(name).strip() for name in names]


def count_gpus(device: str) -> int:
    """Return the number of GPUs that trials may use; 0 if `device` is "cpu".

    Raises:
        UsageError: If `device` is "cuda" and PyTorch finds no CUDA device.
    """
    count = 0 if device == "cpu" else len(visible_gpus())
    if device == "cuda" and not count:
        raise UsageError("device cuda: PyTorch finds no CUDA device; use --device cpu or auto")
    return count


def trials_at_once(gpus: int, gpus_per_trial: float) -> int:
    """Return the number of trials that can run on the GPUs at a time; a trial uses one GPU.

    Args:
        gpus: Number of GPUs.
        gpus_per_trial: Share of a GPU that each trial uses, above 0 and at most 1.
    """
    return gpus * int(1 / gpus_per_trial + 1e-6)  # 1 / (1 / 49) is below 49


def check_capacity(jobs: int, gpus_per_trial: float, gpus: int) -> None:
    """Raise UsageError if the trials that run at a time do not fit on the GPUs.

    Args:
        jobs: Number of trials that run at a time.
        gpus_per_trial: Share of a GPU that each trial uses; 0: trials need no GPU.
        gpus: Number of GPUs.
    """
    if not gpus_per_trial:
        return
    if not gpus:
        raise UsageError(
            f"--gpus-per-trial {gpus_per_trial:g}: the trials have no GPU (PyTorch finds none, or they train "
            "on the CPU); omit the option, or use --device cuda on a machine with a GPU"
        )
    capacity = trials_at_once(gpus, gpus_per_trial)
    if jobs > capacity:
        raise UsageError(
            f"--jobs {jobs} with --gpus-per-trial {gpus_per_trial:g} need more than the {gpus} "
            f"GPU{'s' * (gpus > 1)} of this search; use --jobs {capacity}, or omit --gpus-per-trial"
        )
