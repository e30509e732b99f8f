"""Builds of shard sets from files: in memory and on disk, with and without features, with several threads."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardwave.bench.gpu import device, feed
from shardwave.bench.gpu.cases import BUILDS as STAGE
from shardwave.bench.gpu.cases import COLD, FIRST, MEMORY
from shardwave.bench.harness.audio import SECONDS, repeat_clips
from shardwave.bench.harness.limits import drop_from_cache
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope
from shardwave.common.messages import muted
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions

UNIT = "x real time"
SETS = {
    "images": SpectrogramConfig(slices=10),
    "images + features": SpectrogramConfig(slices=10, features=True),
}


def run(scope: Scope) -> Iterator[Record]:
    """Build sets of 30 s clips: the first build of a process, then each combination once, then cold files.

    Yields:
        Records in seconds of audio per second.
    """
    count, threads = scope.pick(4, 1_000), (1,) if scope.quick else (4, 8, 16)
    places = {"on disk": scope.subfolder("builds")}
    audio = places["on disk"] / "audio"
    repeat_clips(scope.audio, audio, count)
    needed = 1.1 * count * (1 + SETS["images"].slices) * SETS["images"].image_size ** 2
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > needed:
        places = {"in memory": MEMORY / scope.folder.parent.name, **places}
    else:
        reason = f"{MEMORY} does not exist, or has less than {needed / 1e9:.1f} GB free"
        yield Record(STAGE, "images, in memory", "ours", UNIT, skipped=reason)
    try:
        where, first = next(iter(places.items()))
        yield _build(scope, f"images, {where}, {FIRST}", audio, first, threads[0], "images")
        for place, folder in places.items():
            for name in SETS:
                for number in threads:
                    case = f"{name}, {place}, {number} thread{'s' * (number > 1)}"
                    yield _build(scope, case, audio, folder, number, name)
            if scope.quick:  # the same code writes to disk
                break
        for number in threads:
            folder = next(iter(places.values()))
            clear(folder / "set")
            spent = feed.seconds(audio, folder / "set", device.name(scope.cuda), number, SETS["images"])
            case = f"a copy instead of the transform, {where}, {number} thread{'s' * (number > 1)}"
            yield Record(
                STAGE, case, "baseline", UNIT, [count * SECONDS / spent], _params(scope, count, number)
            )
        yield _cold(scope, audio, places["on disk"], count, threads[-1])
    finally:
        for folder in places.values():
            clear(folder)


def clear(folder: Path) -> None:
    """Remove a folder if it exists."""
    shutil.rmtree(folder, ignore_errors=True)


def _params(scope: Scope, clips: int, threads: int) -> dict[str, Any]:
    return {
        "clips": clips, "different_clips": len(scope.audio), "seconds": SECONDS, "threads": threads,
        "device": device.name(scope.cuda), "audio": scope.audio_source,
    }  # fmt: skip


def _build(scope: Scope, case: str, audio: Path, folder: Path, threads: int, name: str) -> Record:
    """Build the set once and return its record; the set is removed afterwards."""
    out, where = folder / "set", device.name(scope.cuda)
    clear(out)
    folder.mkdir(parents=True, exist_ok=True)
    options = BuildOptions(engine="torch", device=where, workers=threads, val_fraction=0)
    with muted():
        start = time.perf_counter()
        manifest = build(audio, out, SETS[name], options)
        seconds = time.perf_counter() - start
    entries = [
        entry for views in manifest["splits"].values() for shards in views.values() for entry in shards
    ]
    written = sum(entry["bytes"] for entry in entries)
    clear(out)
    clips = manifest["clips"]
    params = {**_params(scope, clips, threads), "bytes": written, "gb_per_second": written / seconds / 1e9}
    return Record(STAGE, case, "ours", UNIT, [clips * SECONDS / seconds], params)


def _cold(scope: Scope, audio: Path, folder: Path, count: int, threads: int) -> Record:
    """Build from files that are different and not in the page cache, once."""
    case = f"images, on disk, {COLD}, {threads} thread{'s' * (threads > 1)}"
    copies = folder / "cold"
    shutil.copytree(audio, copies)
    if not drop_from_cache(list(copies.rglob("*.wav"))):
        return Record(STAGE, case, "ours", UNIT, skipped="this system cannot drop files from its page cache")
    record = _build(scope, case, copies, folder, threads, "images")
    clear(copies)
    return record
