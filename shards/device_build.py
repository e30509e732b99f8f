"""Builds on a device in one process: a few threads, each with an engine of its own, compute and write whole units side by side.

While one thread waits for its last batch or hashes what it writes, the others keep the device busy. What an engine takes together
as a batch follows from the unit alone, so that a build which was interrupted still ends with the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shards.pool import Progress
from shards.unit import Unit
from shards.worker import Builder, Job, finished_record, identity

THREADS = 4
ROOM = 4 << 30  # bytes of device memory for each of them


def run(job: Job, units: Sequence[Unit], progress: Progress) -> list[dict[str, Any]]:
    """Build `units`, or keep what was finished before; the records, in any order."""
    telling, own = threading.Lock(), threading.local()
    stop = threading.Event()

    def clip(seconds: float, good: bool) -> None:
        if stop.is_set():
            raise InterruptedError("another unit failed")
        with telling:
            progress.clips(1, seconds, int(not good))

    def build(unit: Unit) -> dict[str, Any]:
        record = finished_record(job, unit)
        if record is not None:
            with telling:
                progress.kept(len(unit.clips))
            return record
        if not hasattr(own, "builder"):
            own.builder = Builder(job)
        return own.builder.build(unit, clip).finish(identity(job.engine, job.device))

    with ThreadPoolExecutor(threads(job.device), "build") as pool:
        futures = [pool.submit(build, unit) for unit in units]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def threads(device: str) -> int:
    """As many as the device has room for."""
    if device != "cuda":
        return THREADS
    import torch

    return max(1, min(THREADS, torch.cuda.mem_get_info()[0] // ROOM))
