"""Measurements of a GPU during a call: time of its kernels, and memory in use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

INTERVAL = 0.1  # seconds between two measurements of the memory


def name(cuda: bool) -> str:
    """Return the name of the device that the steps use."""
    return "cuda" if cuda else "cpu"


def kernel_seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of all kernels and copies on the GPU during one call, and those of the call."""
    import torch

    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6, seconds


class PeakMemory:
    """Context manager that measures the memory in use on the GPU, by all processes.

    Attributes:
        gigabytes: Largest memory in use; None without a GPU.
    """

    def __init__(self) -> None:
        import torch

        self.gigabytes: float | None = 0.0 if torch.cuda.is_available() else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.gigabytes is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.gigabytes is not None:
            self._thread.join()

    def _watch(self) -> None:
        import torch

        while not self._stop.wait(INTERVAL):
            free, total = torch.cuda.mem_get_info()
            self.gigabytes = max(self.gigabytes or 0.0, (total - free) / 1e9)
