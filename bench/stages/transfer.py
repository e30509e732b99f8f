"""Host to device: uint8 batches from pinned and from plain memory, and the bandwidth of the device itself."""

from __future__ import annotations

from collections.abc import Iterator

from bench import floor
from bench.record import Record
from bench.scope import NO_CUDA, Scope, skip
from bench.timing import Case, timed

STAGE, UNIT = "transfer", "GB/s"
BATCH, SIZE = 256, 512


def run(scope: Scope) -> Iterator[Record]:
    """One 67 MB batch at a time; beside it the largest transfers the bus gives, and a copy within the device."""
    names = [
        ("batch, pinned memory", "ours"),
        ("batch, pageable memory", "ours"),
        ("one large pinned copy", "floor"),
        ("copy within the device", "floor"),
    ]
    if not scope.cuda:
        yield from skip(STAGE, UNIT, names, NO_CUDA)
        return
    import torch

    params = {"batch_size": BATCH, "shape": [SIZE, SIZE], "dtype": "uint8"}
    pageable = torch.randint(0, 256, (BATCH, SIZE, SIZE), dtype=torch.uint8)
    pinned, target = pageable.pin_memory(), torch.empty_like(pageable, device="cuda")
    large = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    on_device = torch.empty_like(large, device="cuda")
    gigabytes = pageable.nbytes / 1e9
    cases = [
        Case(names[0][0], "ours", lambda: target.copy_(pinned, non_blocking=True), gigabytes, params),
        Case(names[1][0], "ours", lambda: target.copy_(pageable), gigabytes, params),
        Case(
            names[2][0], "floor", lambda: on_device.copy_(large, non_blocking=True), large.nbytes / 1e9, {"bytes": large.nbytes}
        ),
    ]
    yield from timed(STAGE, UNIT, cases, scope.plan)
    within, moved = floor.copy("cuda", 1 << 30)
    yield from timed(
        STAGE, UNIT, [Case(names[3][0], "floor", within, moved / 1e9, {"bytes read and written": moved})], scope.plan
    )
