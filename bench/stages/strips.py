"""Sets of strips beside sets of views of the same clips: build, size, and shuffled batches of slices."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Params, Record
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.peers import loading as peers
from shardwave.common.messages import muted
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.format import manifest
from shardwave.shards.format.layouts import LAYOUTS
from shardwave.shards.read.loader import Loader
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.strip_view import StripView

STAGE, UNIT = "strips", "samples/s"
RATE = 22_050  # Hz
LENGTHS = (30, 5)  # seconds of the clips


def run(scope: Scope) -> Iterator[Record]:
    """Build both layouts of clips of two lengths, and read shuffled batches of their slices.

    Yields:
        Records in x real time for builds, with the bytes of the set, and in samples per second for reading.
    """
    for seconds in LENGTHS:
        folder = scope.subfolder(f"strips-{seconds}")
        audio = _clips(scope, folder / "audio", seconds)
        yield from _builds(scope, folder, audio, seconds)
        sets = {layout: folder / layout for layout in LAYOUTS}
        for batch in (32,) if scope.quick else (32, 256):
            yield from _warm(scope, folder, sets, batch, seconds)
        yield from _cold(scope, sets, seconds)


def _clips(scope: Scope, folder: Path, seconds: int) -> int:
    """Write the first seconds of each clip into class folders; returns the number of clips."""
    for i, path in enumerate(scope.audio):
        target = folder / f"class{i % 2}" / f"{i:04d}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(path, dtype="int16", frames=seconds * RATE)
        soundfile.write(target, samples, rate)
    return len(scope.audio)


def _builds(scope: Scope, folder: Path, clips: int, seconds: int) -> Iterator[Record]:
    """Measure builds by all workers, with their start, and the bytes of the sets."""
    cases = []
    for layout in LAYOUTS:
        options = BuildOptions(layout=layout, workers=scope.workers, overwrite=True)

        def once(layout: str = layout, options: BuildOptions = options) -> None:
            with muted():
                build(folder / "audio", folder / layout, SpectrogramConfig(), options)

        once()
        bytes_ = sum(entry["bytes"] for entry in manifest.entries(open_set(folder / layout).manifest))
        params: Params = {
            "group": f"{seconds} s, build",
            "clips": clips,
            "workers": scope.workers,
            "bytes_per_clip": round(bytes_ / clips),
        }
        cases.append(Case(f"{seconds} s, build: {layout}", "ours", once, clips * seconds, params))
    yield from timed(STAGE, "x real time", cases, scope.plan, warmup=0)


def _epoch(path: Path, batch: int, threads: int | None = None, *, fresh: bool = False) -> Callable[[], None]:
    """Return a function that reads one shuffled epoch of the slices of the training split, see `Loader`."""
    view = open_set(path).view("train", "slice")
    epochs = itertools.count(1)
    spans = None
    if fresh:
        assert isinstance(view, StripView)
        spans = _fresh(view)
    loader = Loader(view, batch, shuffle=True, threads=threads, spans=spans)

    def epoch() -> None:
        loader.set_epoch(next(epochs))
        for _ in loader:
            pass

    return epoch


def _fresh(view: StripView) -> Callable[[int], np.ndarray]:
    return lambda epoch: view.random_spans(0, epoch, (0.8, 1.25))


def _warm(scope: Scope, folder: Path, sets: dict[str, Path], batch: int, seconds: int) -> Iterator[Record]:
    """Measure reads from the page cache: both layouts, LitData, and a copy."""
    group = f"{seconds} s, batches of {batch}"
    views = open_set(sets["views"]).view("train", "slice")
    count, size = len(views), int(np.prod(views.set.field("npy")["shape"]))
    params: Params = {"group": group, "samples": count, "sample_bytes": size, "batch_size": batch}
    least = count * size / scope.machine.memory

    def case(name: str, role: str, run: Callable[[], object], **more: Any) -> Case:
        return Case(f"{group}: {name}", role, run, count, {**params, **more}, least=least)

    images = views.gather(range(count))["npy"]
    copy = limits.gather([images.reshape(-1)], [(0, i * size) for i in range(count)], size, batch)
    order = np.random.default_rng(0).permutation(count)
    cases = [
        case("memcpy gather", "baseline", lambda: copy(order)),
        case("views, one thread", "ours", _epoch(sets["views"], batch, 1), threads=1),
        case("strips", "ours", _epoch(sets["strip"], batch, scope.workers), threads=scope.workers),
        case("strips, random slices", "ours", _epoch(sets["strip"], batch, fresh=True)),
        scope.machine.limit_case(f"{group}: ", count, params, memory=count * size),
    ]
    if scope.workers > 1:
        name = f"views, {scope.workers} threads"
        cases.append(case(name, "ours", _epoch(sets["views"], batch, scope.workers), threads=scope.workers))
    absent = "not in the quick run" if scope.quick else missing("litdata", "bench")
    if absent is None:
        written = folder / "litdata"
        if not written.exists():
            peers.litdata_write(images, count, written)
        cases.append(case("LitData, one process", "peer", peers.litdata_epoch(written, batch, 0)))
    else:
        cases.append(Case(f"{group}: LitData, one process", "peer", skipped=absent))
    yield from timed(STAGE, UNIT, cases, scope.plan)


def _cold(scope: Scope, sets: dict[str, Path], seconds: int) -> Iterator[Record]:
    """Measure reads after the tars were dropped from the page cache; opening is included."""
    group = f"{seconds} s, batches of 32, cold"
    tars = {layout: sorted(path.glob("train-*.tar")) for layout, path in sets.items()}
    if not limits.drop_from_cache(tars["views"]):
        reason = "this system cannot drop files from the page cache"
        yield Record(STAGE, f"{group}: views", "ours", UNIT, skipped=reason)
        return
    count = len(open_set(sets["views"]).view("train", "slice"))

    def case(layout: str) -> Case:
        def drop() -> None:
            gc.collect()  # mapped pages are not dropped
            limits.drop_from_cache(tars[layout])

        path, params = sets[layout], {"group": group, "samples": count, "batch_size": 32, "cache": "dropped"}
        return Case(f"{group}: {layout}", "ours", lambda: _epoch(path, 32)(), count, params, drop)

    yield from timed(STAGE, UNIT, [case(layout) for layout in LAYOUTS], scope.plan)
