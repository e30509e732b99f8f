"""Loading of shuffled batches of 512 x 512 images from disk and over HTTP; opening of a large set."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Params, Record
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.peers import loading as peers
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import make_engine
from shardwave.shards.build.writer import write_set
from shardwave.shards.format import index
from shardwave.shards.format.layout import INDEX
from shardwave.shards.format.manifest import SetDescription
from shardwave.shards.format.shard_writer import Row
from shardwave.shards.read.stream import Sample, stream

STAGE, UNIT = "loading", "samples/s"
SHARD_BYTES = 64e6  # several shards for every worker
SMALL = 2_000  # samples of the set for cold reading and streaming
SLICES = 10  # samples of a clip in an epoch
PNG_FILES = 400  # samples of the PNG folder, which is slow
CLASSES = 10


def run(scope: Scope) -> Iterator[Record]:
    """Measure sets of two sizes with two batch sizes, cold files, streaming, and opening.

    Yields:
        Records in samples per second, and in milliseconds for opening.
    """
    images = _spectrograms(scope, scope.pick(4, 20))
    for count in (300,) if scope.quick else (SMALL, 20_000):
        folder = scope.subfolder(f"loading-{count}")
        needed, free = 2.2 * count * images[0].nbytes, shutil.disk_usage(folder).free
        if free < needed:
            reason = (
                f"{needed / 1e9:.0f} GB needed under {folder.parent}, {free / 1e9:.0f} GB free: set "
                "TMPDIR to another folder"
            )
            yield Record(STAGE, f"{count} samples", "ours", UNIT, skipped=reason)
            continue
        tars = write_images(folder / "set", images, count, SHARD_BYTES)
        sizes = {"samples": count, "sample_bytes": images[0].nbytes}
        yield from _warm(scope, folder, images, tars, sizes)
        gc.collect()
        if count <= SMALL:
            yield from _cold(scope, tars, sizes)
            yield from _streaming(scope, tars, sizes)
        shutil.rmtree(folder)
    yield from _opening(scope)


def _case(
    params: Params,
    name: str,
    role: str,
    run: Callable[[], object],
    before: Callable[[], object] | None = None,
    rate: float | None = None,
    **more: Any,
) -> Case:
    """Return a case that reads all samples of `params`; `rate` is the bytes per second of its limit."""
    params = {**params, **more}
    least = None if rate is None else params["samples"] * params["sample_bytes"] / rate
    return Case(f"{params['group']}: {name}", role, run, params["samples"], params, before, least=least)


def _limit(scope: Scope, params: Params, resource: str) -> Case:
    """Return the case of the limit of a group: every byte of a sample is moved once."""
    amounts = {resource: params["samples"] * params["sample_bytes"]}
    return scope.machine.limit_case(f"{params['group']}: ", params["samples"], params, **amounts)


def _warm(
    scope: Scope, folder: Path, images: np.ndarray, tars: Sequence[Path], sizes: Params
) -> Iterator[Record]:
    """Measure reads from the page cache: ours, peers, and a copy."""
    count, size = sizes["samples"], sizes["sample_bytes"]
    _png_folder(folder / "png", images, scope.pick(64, count))
    slow = "not in the quick run: writing its chunks takes too long"
    absent = slow if scope.quick else missing("litdata", "bench")
    if absent is None:
        peers.litdata_write(images, count, folder / "litdata")
    mapped, offsets = _members(tars)
    order = np.random.default_rng(0).permutation(count)
    large, rate = count > SMALL, scope.machine.memory
    for batch in (32,) if scope.quick else (32, 256):
        params = {
            **sizes,
            "group": f"{count:,} samples, batches of {batch}",
            "batch_size": batch,
            "cache": "warm",
        }
        clip_step: Params = (
            {}
            if large or batch != 32
            else {"clip_step": {"step": "Loading batches", "work": SLICES, "when": "epoch"}}
        )
        copy = functools.partial(limits.gather(mapped, offsets, size, batch), order)
        cases = [
            _case(params, "memcpy gather", "baseline", copy, rate=rate),
            _case(
                params,
                "ours, one process",
                "ours",
                _ours(folder / "set", batch, 1),
                rate=rate,
                threads=1,
                **clip_step,
            ),
            _limit(scope, params, "memory"),
        ]
        if (threads := scope.workers) > 1:
            run = _ours(folder / "set", batch, threads)
            cases.append(_case(params, f"ours, {threads} threads", "ours", run, rate=rate, threads=threads))
        for workers in (0,) if scope.quick else (0, scope.workers):
            cases += _peers(folder, tars, params, workers, scope.pick(32, PNG_FILES), absent is None, rate)
        if absent:
            cases.append(Case(f"{params['group']}: LitData", "peer", skipped=absent))
        minimum, limit = 3 if large else scope.plan.minimum, scope.pick(6, 80 if large else 120)
        yield from timed(
            STAGE, UNIT, cases, scope.plan, minimum=minimum, seconds=scope.pick(2, 20), limit=limit
        )


def _peers(
    folder: Path,
    tars: Sequence[Path],
    params: Params,
    workers: int,
    png_files: int,
    litdata: bool,
    rate: float,
) -> list[Case]:
    """Return cases of stock loaders, with `workers` processes or none; slow ones read fewer samples."""
    batch, count = params["batch_size"], params["samples"]
    processes = f"{workers} workers" if workers else "one process"
    params, few = {**params, "workers": workers}, min(count, png_files)
    part = tars[: -(-len(tars) * min(count, SMALL) // count)]
    streamed = sum(len(index.read(tar.with_suffix(INDEX))) for tar in part)
    stock = peers.webdataset_epoch([str(tar) for tar in part], batch, workers)
    png = peers.image_folder_epoch(folder / "png", batch, workers, few)
    cases = [
        _case(params, f"webdataset, {processes}", "peer", stock, rate=rate, samples=streamed),
        _case(params, f"PNG folder, ImageFolder, {processes}", "peer", png, samples=few),
    ]
    if litdata:
        epoch = peers.litdata_epoch(folder / "litdata", batch, workers)
        cases.append(_case(params, f"LitData, {processes}", "peer", epoch, rate=rate))
    return cases


def _ours(path: Path, batch: int, threads: int) -> Callable[[], None]:
    """Return a function that reads one epoch of our loader; every call shuffles anew."""
    from shardwave.shards.read.loader import Loader
    from shardwave.shards.read.open_set import open_set

    loader = Loader(open_set(path).view("train"), batch, shuffle=True, threads=threads)
    epochs = itertools.count(1)

    def run() -> None:
        loader.set_epoch(next(epochs))
        for _ in loader:
            pass

    return run


def _cold(scope: Scope, tars: Sequence[Path], sizes: Params) -> Iterator[Record]:
    """Measure reads after the files were dropped from the page cache; opening is included."""
    group = f"{sizes['samples']:,} samples, batches of 32, cold"
    params = {**sizes, "group": group, "batch_size": 32, "cache": "dropped"}
    if not limits.drop_from_cache(tars):
        reason = "this system cannot drop files from the page cache"
        yield Record(STAGE, f"{group}: ours", "ours", UNIT, skipped=reason)
        return

    rate = scope.machine.disk_read

    def drop() -> None:
        gc.collect()  # mapped pages are not dropped
        limits.drop_from_cache(tars)

    stock = peers.webdataset_epoch([str(tar) for tar in tars], 32, 0)
    cases = [
        _case(params, "disk read, in order", "baseline", lambda: limits.read_files(tars), drop, rate),
        _case(params, "ours, one process", "ours", lambda: _ours(tars[0].parent, 32, 1)(), drop, rate),
        _case(params, "webdataset, one process", "peer", stock, drop, rate),
        _limit(scope, params, "disk_read"),
    ]
    yield from timed(STAGE, UNIT, cases, scope.plan)


def _streaming(scope: Scope, tars: Sequence[Path], sizes: Params) -> Iterator[Record]:
    """Measure reads from a local HTTP server: ours, webdataset, and the bytes alone."""
    from torch.utils.data import DataLoader

    group = f"{sizes['samples']:,} samples, batches of 32, HTTP"
    params = {**sizes, "group": group, "batch_size": 32, "server": "http.server, same machine"}
    rate = scope.machine.memory
    with serving(tars[0].parent) as url:
        urls = [f"{url}/{tar.name}" for tar in tars]
        samples = stream(url, "train", shuffle=peers.SHUFFLE)
        batches = DataLoader(samples, batch_size=32, collate_fn=_collate)

        def ours() -> None:
            samples.set_epoch(samples.epoch + 1)
            for _ in batches:
                pass

        if shutil.which("curl"):
            stock = _case(params, "webdataset", "peer", peers.webdataset_epoch(urls, 32, 0), rate=rate)
        else:
            reason = "webdataset reads HTTP through the command curl, which is not installed"
            stock = Case(f"{group}: webdataset", "peer", skipped=reason)
        cases = [
            _case(params, "bytes alone", "baseline", lambda: _fetch(urls), rate=rate),
            _case(params, "ours", "ours", ours, rate=rate),
            stock,
            _limit(scope, params, "memory"),
        ]
        yield from timed(STAGE, UNIT, cases, scope.plan)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve `folder` over HTTP in another process during the block; yields the address."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield (
                server.stdout.readline().split("(")[1].split("/)")[0]
            )  # Serving HTTP on ... (http://127.0.0.1:8000/) ...
        finally:
            server.terminate()


def _fetch(urls: Sequence[str]) -> None:
    """Read all bytes of `urls` into one buffer."""
    buffer = memoryview(bytearray(1 << 20))
    for url in urls:
        with urllib.request.urlopen(url) as answer:
            while answer.readinto(buffer):
                pass


def _opening(scope: Scope) -> Iterator[Record]:
    """Measure the opening of a set of many small samples, with the classes and offsets of all samples."""
    from shardwave.shards.read.open_set import open_set

    count = scope.pick(10_000, 100_000)
    path = scope.subfolder("opening") / "set"
    tars = write_images(path, np.zeros((1, 8, 8), np.uint8), count, 64 * 10_000)
    params = {"samples": count, "shards": len(tars)}
    opened = Case(
        f"opening a set of {count:,} samples", "ours", lambda: open_set(path).view("train"), 1, params
    )
    yield from timed(STAGE, "ms", [opened], scope.plan)


def _collate(samples: list[Sample]) -> tuple[Any, Any]:
    """Join streamed samples into a batch: uint8 [batch, 512, 512] and int64 [batch]."""
    import torch

    return torch.from_numpy(np.stack([np.asarray(sample["npy"]) for sample in samples])), torch.tensor(
        [sample["cls"] for sample in samples]
    )


def _members(tars: Sequence[Path]) -> tuple[list[Any], list[tuple[int, int]]]:
    """Return the mapped tars, and (tar, first byte) of every image in them, found by `tarfile`."""
    mapped, offsets = [], []
    for number, tar in enumerate(tars):
        mapped.append(np.memmap(tar, np.uint8, "r"))
        with tarfile.open(tar) as archive:
            offsets += [
                (number, member.offset_data + 128) for member in archive if member.name.endswith(".npy")
            ]
    return mapped, offsets


def _png_folder(folder: Path, images: np.ndarray, count: int) -> None:
    """Write one RGB PNG per sample in class folders; repeated images are hard links."""
    from PIL import Image

    written: list[Path] = []
    for i in range(count):
        path = folder / f"class{i % CLASSES}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < min(len(images), PNG_FILES):
            Image.fromarray(images[i]).convert("RGB").save(path)
            written.append(path)
        else:
            path.hardlink_to(written[i % len(written)])


def _spectrograms(scope: Scope, clips: int) -> np.ndarray:
    """Compute the images of clips and of their ten slices, uint8 [clips x 11, 512, 512]."""
    config = SpectrogramConfig()
    engine = make_engine("numba", "cpu", config)
    outputs = [engine([decode(path, config.sample_rate).samples]) for path in scope.audio[:clips]]
    return np.concatenate([part for output in outputs for part in (output.full, output.slices[0])])


def write_images(out: Path, images: np.ndarray, count: int, shard_bytes: float) -> list[Path]:
    """Write a shard set of full views that repeat `images`, and return the paths of its tars.

    Args:
        out: Folder of the set.
        images: uint8 [n, ...].
        count: Number of samples.
        shard_bytes: Bytes of images per shard.
    """
    per_shard = max(1, int(shard_bytes // max(1, images[0].nbytes)))

    def row(i: int) -> Row:
        meta = {
            "label": f"class{i % CLASSES}", "path": f"class{i % CLASSES}/{i:06d}.wav", "group": None,
            "fold": None,
            "view": "full", "slice": None, "start": 0.0, "length": 30.0, "source_rate": 22_050,
        }  # fmt: skip
        return Row(f"{i:06d}", i % CLASSES, i, meta, {"npy": images[i % len(images)]})

    shards = [
        ("train", "full", number, map(row, range(start, min(start + per_shard, count))))
        for number, start in enumerate(range(0, count, per_shard))
    ]
    description: SetDescription = {
        "config": {"bench": "repeated images", "shape": list(images.shape[1:])}, "engine": None,
        "device": "cpu", "seed": 0,
        "classes": [f"class{i}" for i in range(CLASSES)], "feature_names": [], "clips": count,
        "audio_seconds": 0.0,
    }  # fmt: skip
    write_set(out, shards, {"npy": ("uint8", images.shape[1:])}, description, samples=count)
    return sorted(out.glob("*.tar"))
