"""Rates of the machine: digests, disk, memory of the GPU, transfers to and from it, and matrix products."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from shardwave.bench.gpu import device
from shardwave.bench.gpu.cases import DISK
from shardwave.bench.gpu.cases import MACHINE as STAGE
from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import NO_CUDA, Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.common.environment import cores

PEAKS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def run(scope: Scope) -> Iterator[Record]:
    """Measure the rates that bound the other steps.

    Yields:
        Records in GB/s, and in TFLOP/s for matrix products.
    """
    flags = cpu_flags()
    for workers in sorted({1, cores()}):
        machine = limits.measure_machine(scope.subfolder("machine"), workers, quick=True)
        name = f"{workers} thread{'s' * (workers > 1)}"
        params = {"threads": workers, "instructions": flags}
        yield Record(STAGE, f"BLAKE3, {name}", "limit", "GB/s", [machine.digest / 1e9], params)
        yield Record(STAGE, f"memory copy, {name}", "limit", "GB/s", [machine.memory / 1e9], params)
    yield from timed(STAGE, "GB/s", [_disk(scope)], scope.plan, minimum=2)
    where = device.name(scope.cuda)
    copy, moved = limits.copy(where, scope.pick(1 << 26, 1 << 31))
    yield from timed(
        STAGE, "GB/s", [Case(f"copy within {where}", "limit", copy, moved / 1e9)], scope.plan, minimum=3
    )
    yield from _transfers(scope)
    for name, dtype in PEAKS.items():
        product, operations = limits.matmul(where, dtype, scope.pick(256, 8_192))
        case = Case(f"matrix product, {name}", "limit", product, operations / 1e12)
        yield from timed(STAGE, "TFLOP/s", [case], scope.plan, minimum=3)


def _disk(scope: Scope) -> Case:
    """Return the case of one file that is written and synced to the disk of `--out`."""
    path, data = scope.folder / "disk", np.random.default_rng(0).bytes(scope.pick(1 << 24, 1 << 30))

    def write() -> None:
        limits.write_file(path, memoryview(data))
        path.unlink()

    return Case(DISK, "limit", write, len(data) / 1e9, {"bytes": len(data)})


def _transfers(scope: Scope) -> Iterator[Record]:
    """Measure copies from pinned memory to the GPU and back."""
    names = "pinned memory to the GPU", "the GPU to pinned memory"
    if not scope.cuda:
        for name in names:
            yield Record(STAGE, name, "limit", "GB/s", skipped=NO_CUDA)
        return
    host = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    on_gpu = torch.empty_like(host, device="cuda")
    copies: tuple[Callable[[], object], ...] = (
        lambda: on_gpu.copy_(host, non_blocking=True),
        lambda: host.copy_(on_gpu, non_blocking=True),
    )
    cases = [Case(name, "limit", copy, host.nbytes / 1e9) for name, copy in zip(names, copies, strict=True)]
    yield from timed(STAGE, "GB/s", cases, dataclasses.replace(scope.plan, minimum=3))


def cpu_flags() -> dict[str, bool] | None:
    """Return whether the CPU has instructions for SHA, AVX2 and AVX-512; None if /proc does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    return None if flags is None else {flag: flag in flags for flag in ("sha_ni", "avx2", "avx512f")}
