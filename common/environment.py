"""Record of machine, devices, versions, commit and date, which manifests, results and bench records store."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TypedDict

PACKAGES = (
    "torch", "torchvision", "torchaudio", "nvidia-dali-cuda130", "lightning", "ray", "optuna", "webdataset",
    "scikit-learn", "numpy", "numba", "soundfile", "soxr", "librosa",
)  # fmt: skip


class Static(TypedDict):
    """The part of the environment that does not change while a process runs."""

    machine: str
    cpu: str
    cores: int
    memory_gb: float
    python: str
    versions: dict[str, str]  # by package
    commit: str | None


class Environment(Static):
    """Record of machine, versions, devices and date."""

    gpu: list[str]  # names of the devices
    date: str  # UTC, ISO 8601


def environment() -> Environment:
    """Return a record of the environment at this moment."""
    return {
        **_static(),
        "gpu": _gpu_names(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _static() -> Static:
    return {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")  # if torch is not imported, no GPU was used; importing it takes seconds
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        root = Path(__file__).resolve().parent.parent
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None
