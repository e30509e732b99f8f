"""The torch engine's computation alone: samples on the device to images and features there."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from shardwave.bench.gpu import device
from shardwave.bench.gpu.cases import FEATURES, IMAGES
from shardwave.bench.gpu.cases import TRANSFORM as STAGE
from shardwave.bench.harness import limits
from shardwave.bench.harness.audio import RATE, SECONDS
from shardwave.bench.harness.record import Record, with_limit
from shardwave.bench.harness.scope import NO_CUDA, Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.torch import TorchEngine, full_precision

UNIT = "ms"
SETS = {
    "full": SpectrogramConfig(slices=0),
    IMAGES: SpectrogramConfig(slices=10),
    f"{IMAGES} + features": SpectrogramConfig(slices=10, features=True),
}


def run(scope: Scope) -> Iterator[Record]:
    """Measure clips of 30 s, a few and many, whose 16-bit samples are on the device.

    The limit is the bytes of the samples and images, at the rate of a copy within the device.

    Yields:
        Records in milliseconds per clip.
    """
    where = device.name(scope.cuda)
    few, many = (1, 2) if scope.quick else (5, 50)
    paths = scope.audio[:few]
    clips = [torch.from_numpy(decode(path, RATE, integers=True).samples).to(where) for path in paths]
    copy, moved = limits.copy(where, scope.pick(1 << 26, 1 << 31))
    (rate,) = timed(STAGE, "GB/s", [Case("copy", "limit", copy, moved / 1e9)], scope.plan, minimum=3)
    medians: dict[tuple[str, int], float] = {}
    for name, config in SETS.items():
        engine = TorchEngine(config, where)
        bounds = config.slice_bounds(len(clips[0]))
        bytes_ = clips[0].nbytes + (1 + len(bounds)) * config.image_size**2

        def work(count: int, engine: TorchEngine = engine, bounds: list[tuple[int, int]] = bounds) -> None:
            with torch.inference_mode(), full_precision():
                for i in range(count):
                    engine.compute(clips[i % len(clips)], -15, bounds)

        for count in (few, many):
            params = {"clips": count, "seconds": SECONDS, "device": where, "bytes_a_clip": bytes_}
            case = Case(f"{name}, {count} clips", "ours", functools.partial(work, count), count, params)
            (record,) = timed(STAGE, UNIT, [case], scope.plan)
            medians[name, count] = record.median
            yield with_limit(record, 1e3 * bytes_ / (1e9 * rate.median))
        own = f"{name}, {count} clips: kernels' own time"
        if scope.cuda:
            yield Record(
                STAGE, own, "ours", UNIT, [1e3 * device.kernel_seconds(lambda: work(many))[0] / many], params
            )
        else:
            yield Record(STAGE, own, "ours", UNIT, skipped=NO_CUDA)
    difference = medians[f"{IMAGES} + features", many] - medians[IMAGES, many]
    yield Record(STAGE, FEATURES, "ours", UNIT, [difference], params)
