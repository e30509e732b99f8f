"""`python -m shardwave.bench.scale_set`: cost of opening, shuffling and planning a set of a million clips.

The set is synthetic: manifest and indexes are those of a build with default options, and tars are sparse
files without content, which opening, shuffling and planning do not read. Every repeat runs in a new process
with the files in the page cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from shardwave.bench.harness.record import Params, Record, append
from shardwave.common.environment import environment
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.plan import make, spread
from shardwave.shards.clip import Clip
from shardwave.shards.format import manifest
from shardwave.shards.format.index import Index
from shardwave.shards.format.layout import BLOCK, NPY_HEADER, padded, shard_name
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.sampler import Order
from shardwave.shards.splits.assign import assign

STAGE = "scale-set"
IMAGE_SIZE, SLICES, SHARD_MB, VAL, CLIP_SECONDS = 512, 10, 256, 0.2, 30.0  # defaults of a build; 30 s clips
RANKS, BATCH = 8, 32  # of the planned epoch
MEASURES = {
    "open": "open", "shuffle": "shuffle", "plan": "plan an epoch", "all": "all three",
    "cpu": "all three, processor time",
    "peak": "memory",
}  # fmt: skip
IMAGE = padded(NPY_HEADER + IMAGE_SIZE**2)
SAMPLE = 512 + IMAGE + 2 * (512 + BLOCK)  # bytes: headers, image, class, json


def write_set(folder: Path, clips: int) -> None:
    """Write a set of `clips` clips into `folder`, with the shards of `shardwave.shards.build.plan`."""
    splits: manifest.Splits = {}
    first = 0
    for split, count in (("train", clips - int(VAL * clips)), ("val", int(VAL * clips))):
        shard, rank = spread(np.full(count, float(SLICES * SAMPLE)), split, 0, 1, SHARD_MB)
        order = np.argsort(shard * count + rank)
        views = splits[split] = {"full": [], "slice": []}
        for number, members in enumerate(np.split(order, np.cumsum(np.bincount(shard))[:-1])):
            for view, per_clip in (("full", 1), ("slice", SLICES)):
                views[view].append(
                    _write_shard(folder, split, view, number, np.repeat(first + members, per_clip))
                )
        first += count
    config = {"synthetic": clips}
    classes = [f"class {i}" for i in range(10)]
    contents: manifest.Manifest = {
        "format": manifest.FORMAT,
        "fingerprint": manifest.fingerprint(config),
        "set_id": manifest.set_id({"classes": classes, "splits": splits}),
        "config": config,
        "engine": "none",
        "device": "cpu",
        "seed": 0,
        "classes": classes,
        "feature_names": [],
        "fields": {"npy": {"dtype": "uint8", "shape": [IMAGE_SIZE, IMAGE_SIZE]}, **manifest.OWN_FIELDS},
        "splits": splits,
        "clips": clips,
        "audio_seconds": CLIP_SECONDS * clips,
        "quarantined": 0,
        "remarks": 0,
        "environment": environment(),
    }
    manifest.write(folder, contents)


def _write_shard(folder: Path, split: str, view: str, number: int, clip: np.ndarray) -> manifest.ShardEntry:
    start = 512 + SAMPLE * np.arange(len(clip))
    offset = {"npy": start, "cls": start + IMAGE + 512, "json": start + IMAGE + 1536}
    length = {
        name: np.full_like(start, size)
        for name, size in (("npy", NPY_HEADER + IMAGE_SIZE**2), ("cls", 1), ("json", 230))
    }
    stem, size, digest = shard_name(split, view, number), SAMPLE * len(clip) + 1024, f"{number:064x}"
    (folder / f"{stem}.index").write_bytes(Index(size, digest, clip % 10, clip, offset, length).to_bytes())
    with open(folder / f"{stem}.tar", "wb") as tar:
        tar.truncate(size)
    return {
        "file": f"{stem}.tar",
        "samples": len(clip),
        "bytes": size,
        "blake3": digest,
        "index_blake3": digest,
        "idx_blake3": digest,
        "builder": 0,
    }


def measure(folder: Path, view: str) -> dict[str, float]:
    """Open a set and its training samples, shuffle them and plan an epoch.

    Args:
        folder: Shard set.
        view: View of the samples.

    Returns:
        Number of samples, seconds by step, processor seconds, and the peak memory of the process in MB.
    """
    begin, busy = time.perf_counter(), time.process_time()
    samples = open_set(folder).view("train", view)
    opened = time.perf_counter()
    orders = [Order(len(samples), BATCH, True, 0, rank, RANKS) for rank in range(RANKS)]
    permutation = orders[0].epoch(0)
    shuffled = time.perf_counter()
    planned = sum(len(orders[0].batch(permutation, number)) for number in range(len(orders[0])))
    end = time.perf_counter()
    assert planned == -(-len(samples) // RANKS)
    return {
        "samples": len(samples), "open": opened - begin, "shuffle": shuffled - opened, "plan": end - shuffled,
        "all": end - begin, "cpu": time.process_time() - busy, "peak": _peak(),
    }  # fmt: skip


def measure_build(clips: int) -> dict[str, float]:
    """Plan a build of clips whose splits are given, and assign the splits of a tenth of the clips.

    Args:
        clips: Number of clips.

    Returns:
        Seconds and peak memory in MB of the plan, and seconds of the assignment.
    """
    members = [
        Clip(f"class {i % 10}/clip {i:08d}.wav", f"class {i % 10}", split="train") for i in range(clips)
    ]
    begin = time.perf_counter()
    options = {"seed": 0, "min_shards": 1, "shard_mb": SHARD_MB}
    plan = make(
        members,
        [f"class {i}" for i in range(10)],
        ["train"] * clips,
        Path("/dev/null"),
        SpectrogramConfig(),
        options,
    )
    shards = len(plan.shards())
    planned, peak = time.perf_counter(), _peak()
    assert shards == -(-clips * SLICES * SAMPLE // (SHARD_MB * 10**6))
    del plan
    some = [dataclasses.replace(clip, split=None) for clip in members[: clips // 10]]
    start = time.perf_counter()
    assign(some, val_fraction=VAL, test_fraction=0.0, seed=0)
    return {"plan": planned - begin, "peak": peak, "draw": time.perf_counter() - start}


def _peak() -> float:
    """Return the peak resident set of this process in MB."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m shardwave.bench.scale_set", description=__doc__)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="File (.jsonl) that records are appended to.")
    options = parser.parse_args()

    def keep(case: str, unit: str, values: list[float], params: Params) -> None:
        record = Record(STAGE, case, "ours", unit, values, params)
        if options.out is not None:
            append(options.out, record)
        print(f"{case}: {record.median:.3f} {unit} of {sorted(round(value, 3) for value in values)}")

    alone = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    with alone, tempfile.TemporaryDirectory(prefix="shardwave-scale-") as folder:
        write_set(Path(folder), options.clips)
        files = {
            suffix: [path.stat().st_size for path in Path(folder).glob(f"*{suffix}")]
            for suffix in ("tar", "index", "json")
        }
        settings = {
            "clips": options.clips, "image_size": IMAGE_SIZE, "slices": SLICES, "shard_mb": SHARD_MB,
            "shards": len(files["tar"]),
            "tar_gb": sum(files["tar"]) / 1e9, "index_mb": sum(files["index"]) / 1e6,
            "manifest_mb": sum(files["json"]) / 1e6,
        }  # fmt: skip
        for view in ("full", "slice"):
            results = [alone.submit(measure, Path(folder), view).result() for _ in range(options.repeats)]
            params = {**settings, "samples": int(results[0]["samples"]), "ranks": RANKS, "batch_size": BATCH}
            for name, measure_name in MEASURES.items():
                case = f"{options.clips:,} clips, {view} view: {measure_name}"
                keep(case, "MB" if name == "peak" else "s", [result[name] for result in results], params)
        built = alone.submit(measure_build, options.clips).result()
        keep(f"{options.clips:,} clips: plan a build, splits given", "s", [built["plan"]], settings)
        keep(f"{options.clips:,} clips: plan a build, memory", "MB", [built["peak"]], settings)
        clips = options.clips // 10
        keep(f"{clips:,} clips: assign splits", "s", [built["draw"]], {**settings, "clips": clips})


if __name__ == "__main__":
    main()
