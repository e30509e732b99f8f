"""Transfer of uint8 batches from pinned and pageable memory to the device, and bandwidth of its memory."""

from __future__ import annotations

from collections.abc import Iterator

from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Record, with_limit
from shardwave.bench.harness.scope import NO_CUDA, Scope
from shardwave.bench.harness.timing import Case, timed

STAGE, UNIT = "transfer", "GB/s"
BATCH, SIZE = 256, 512
PINNED, PAGEABLE = "batch, pinned memory", "batch, pageable memory"
LARGE, WITHIN = "one large pinned copy", "copy within the device"


def run(scope: Scope) -> Iterator[Record]:
    """Measure the transfer of batches of 67 MB, of one large pinned array, and a copy within the device.

    The limit of the batches is the rate of the large pinned copy, which is the bandwidth of the bus.

    Yields:
        Records in GB/s.
    """
    if not scope.cuda:
        for name, role in ((PINNED, "ours"), (PAGEABLE, "ours"), (LARGE, "limit"), (WITHIN, "limit")):
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
        Case(LARGE, "limit", lambda: on_device.copy_(large, non_blocking=True), large.nbytes / 1e9, bytes_),
    ]
    *batches, bus = timed(STAGE, UNIT, cases, scope.plan)
    yield from (with_limit(record, bus.median) for record in batches)
    yield bus
    within, bytes_moved = limits.copy("cuda", 1 << 30)
    yield from timed(
        STAGE,
        UNIT,
        [Case(WITHIN, "limit", within, bytes_moved / 1e9, {"bytes read and written": bytes_moved})],
        scope.plan,
    )
