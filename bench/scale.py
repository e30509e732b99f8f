"""`bench throughput --scale`: cost of builds over clips and workers, and the fitted exponents."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from shardwave.bench.harness import process
from shardwave.bench.harness.audio import CLASSES, SECONDS, repeat_clips
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope

STAGE = "scale"
CLIPS, QUICK_CLIPS = (100, 1_000, 10_000), (20, 60, 180)
IMAGE_SIZE = 128  # pixels; at the default size 10,000 clips of eleven images take 29 GB


def run(scope: Scope) -> Iterator[Record]:
    """Measure whole builds by the command line, with eleven images per clip.

    Repeated clips are hard links, so that the audio stays in the page cache.

    Yields:
        Records of the fitted exponents, the rates and the memory.
    """
    sizes = QUICK_CLIPS if scope.quick else CLIPS
    most = scope.workers
    start = min(_build(scope, max(CLASSES, most), most).seconds for _ in range(scope.pick(1, 3)))
    builds = {
        count: [_build(scope, count, most) for _ in range(scope.pick(1, 3 if count <= 1_000 else 1))]
        for count in sizes
    }
    settings = {
        "image_size": IMAGE_SIZE,
        "clip_seconds": SECONDS,
        "audio": scope.audio_source,
        "different_clips": len(scope.audio),
    }
    points = [
        (count, statistics.median(build.seconds for build in runs) - start) for count, runs in builds.items()
    ]
    axis = {"axis": "clips", "measure": "seconds after start-up", "points": points}
    yield _fitted("build over clips", points, {**settings, **axis, "workers": most, "start": start})
    for count, runs in builds.items():
        rates = [count * SECONDS / build.seconds for build in runs]
        yield Record(
            STAGE,
            f"build of {count:,} clips",
            "ours",
            "x real time",
            rates,
            {**settings, "workers": most, "clips": count},
        )
        yield process.memory(STAGE, f"largest process, {count:,} clips", runs, {**settings, "clips": count})
    yield from _workers(scope, sizes[-1] if scope.quick else sizes[1], settings)


def _fitted(case: str, points: Sequence[tuple[float, float]], params: dict) -> Record:
    """Return the record of the exponent, skipped if a build is not longer than its start-up."""
    if min(seconds for _, seconds in points) <= 0:
        reason = "the builds are too short to subtract their start-up: run without --quick"
        return Record(STAGE, case, "ours", "exponent", params=params, skipped=reason)
    return Record(STAGE, case, "ours", "exponent", [exponent(points)], params)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through the logarithms; 1: cost is proportional to work."""
    x, y = np.log(points).T
    return float(np.polyfit(x, y, 1)[0])


def _workers(scope: Scope, clips: int, settings: dict) -> Iterator[Record]:
    counts = sorted(
        {1, scope.workers, *(2**i for i in range(scope.workers.bit_length()) if 2**i <= scope.workers)}
    )
    if len(counts) < 2:
        yield Record(
            STAGE, "build over workers", "ours", "exponent", skipped="one core: there is no second worker"
        )
        return
    points = []
    for count in counts:
        start = _build(scope, max(CLASSES, count), count).seconds
        points.append((count, _build(scope, clips, count).seconds - start))
    axis = {"axis": "workers", "measure": "seconds after start-up", "points": points, "clips": clips}
    yield _fitted("build over workers", points, {**settings, **axis})


def _build(scope: Scope, clips: int, workers: int) -> process.Watched:
    folder = scope.subfolder("scale")
    audio, out = folder / f"audio-{clips}", folder / "set"
    if not audio.exists():
        repeat_clips(scope.audio, audio, clips)
    options = f"--engine numba --device cpu --workers {workers} --image-size {IMAGE_SIZE} --val-fraction 0"
    watched = process.watch([*process.CLI, "shard", str(audio), "--out", str(out), *options.split()])
    shutil.rmtree(out)
    return watched
