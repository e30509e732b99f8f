"""Host to device: uint8 batches from pinned and from plain memory, and the bandwidth of the device itself."""

from __future__ import annotations

from collections.abc import Iterator

from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import NO_CUDA, Scope
from shardwave.bench.harness.timing import Case, timed

STAGE, UNIT = "transfer", "GB/s"
BATCH, SIZE = 256, 512
PINNED, PAGEABLE = "batch, pinned memory", "batch, pageable memory"
LARGE, WITHIN = "one large pinned copy", "copy within the device"


def run(scope: Scope) -> Iterator[Record]:
    """One 67 MB batch at a time; beside it the largest transfers the bus gives, and a copy within the device."""
    if not scope.cuda:
        for name, role in ((PINNED, "ours"), (PAGEABLE, "ours"), (LARGE, "floor"), (WITHIN, "floor")):
            yield Record(STAGE, name, role, UNIT, skipped=NO_CUDA)
        return
    import torch

    params = {"batch_size": BATCH, "shape": [SIZE, SIZE], "dtype": "uint8"}
    pageable = torch.randint(0, 256, (BATCH, SIZE, SIZE), dtype=torch.uint8)
    pinned, target = pageable.pin_memory(), torch.empty_like(pageable, device="cuda")
    large = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    on_device = torch.empty_like(large, device="cuda")
    bytes_ = {"bytes": large.nbytes}
    cases = [
        Case(PINNED, "ours", lambda: target.copy_(pinned, non_blocking=True), pageable.nbytes / 1e9, params),
        Case(PAGEABLE, "ours", lambda: target.copy_(pageable), pageable.nbytes / 1e9, params),
        Case(LARGE, "floor", lambda: on_device.copy_(large, non_blocking=True), large.nbytes / 1e9, bytes_),
    ]
    yield from timed(STAGE, UNIT, cases, scope.plan)
    within, moved = limits.copy("cuda", 1 << 30)
    yield from timed(STAGE, UNIT, [Case(WITHIN, "floor", within, moved / 1e9, {"bytes read and written": moved})], scope.plan)
