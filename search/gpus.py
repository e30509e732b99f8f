"""GPUs that the trials of a search may use, and how many trials they hold."""

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
    """Return how many trials the GPUs hold; a trial uses one GPU.

    Args:
        gpus: Number of GPUs.
        gpus_per_trial: Share of a GPU that each trial uses, above 0 and at most 1.
    """
    return gpus * int(1 / gpus_per_trial + 1e-6)  # 1 / (1 / 49) is below 49


def check_room(jobs: int, gpus_per_trial: float, gpus: int) -> None:
    """Raise UsageError if the GPUs do not hold all trials that run at a time.

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
    room = trials_at_once(gpus, gpus_per_trial)
    if jobs > room:
        raise UsageError(
            f"--jobs {jobs} with --gpus-per-trial {gpus_per_trial:g} need more than the {gpus} "
            f"GPU{'s' * (gpus > 1)} of this search; use --jobs {room}, or omit --gpus-per-trial"
        )
