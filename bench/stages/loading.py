"""Loading: shuffled batches of 512 x 512 uint8 from local shards, warm and cold, over HTTP; opening a large set."""

from __future__ import annotations

import dataclasses
import functools
import gc
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import floor
from bench.peers import loading as peers
from bench.record import Record
from bench.scope import EXTRA, Scope, missing, skip
from bench.sets import spectrograms, write_images
from bench.timing import Case, timed
from shards import index
from shards.layout import INDEX

STAGE, UNIT = "loading", "samples/s"
SHARD_BYTES = 64e6  # several shards for every worker
SMALL = 2_000  # samples of the set that cold reading and streaming are measured on
SLICES = 10  # samples of a clip that an epoch loads
PNG_FILES = 400  # samples that the slow PNG folder is measured on


def run(scope: Scope) -> Iterator[Record]:
    """Sets of two sizes, two batch sizes each; then cold, streaming, and opening."""
    images = spectrograms(scope, scope.pick(4, 20))
    for count in (300,) if scope.quick else (SMALL, 20_000):
        folder = scope.room(f"loading-{count}")
        room = shutil.disk_usage(folder).free
        needed = 2.2 * count * images[0].nbytes
        if room < needed:
            reason = f"{needed / 1e9:.0f} GB needed under {folder.parent}, {room / 1e9:.0f} GB free: set TMPDIR to another folder"
            yield from skip(STAGE, UNIT, [(f"{count} samples", "ours")], reason)
            continue
        tars = write_images(folder / "set", images, count, SHARD_BYTES)
        yield from _warm(scope, folder, images, count, tars)
        gc.collect()
        if count <= SMALL:
            yield from _cold(scope, folder / "set", count, tars, images[0].nbytes)
            yield from _streaming(scope, folder / "set", count, tars, images[0].nbytes)
        shutil.rmtree(folder)
    yield from _opening(scope)


def _warm(scope: Scope, folder: Path, images: np.ndarray, count: int, tars: Sequence[Path]) -> Iterator[Record]:
    """From the page cache: ours with one thread and one per core, the peers in one process and with workers, a plain copy."""
    size = images[0].nbytes
    _png_folder(folder / "png", images, scope.pick(64, count))
    absent = (
        "left out of the quick run: writing its chunks takes too long"
        if scope.quick
        else missing("litdata", EXTRA.format("bench"))
    )
    if absent is None:
        peers.litdata_write(images, count, folder / "litdata")
    mapped, places = _members(tars)
    order = np.random.default_rng(0).permutation(count)
    large = count > SMALL
    least = 3 if large else scope.plan.minimum
    plan = dataclasses.replace(scope.plan, minimum=least, seconds=scope.pick(2, 20), limit=scope.pick(6, 80 if large else 120))
    for batch in (32,) if scope.quick else (32, 256):
        name = f"{count:,} samples, batches of {batch}"
        params = {"group": name, "samples": count, "batch_size": batch, "sample_bytes": size, "cache": "warm"}
        way = {} if large or batch != 32 else {"way": {"step": "Loading batches", "work": SLICES, "when": "epoch"}}
        copy = functools.partial(floor.gather(mapped, places, size, batch), order)
        cases = [
            Case(f"{name}: memcpy gather", "floor", copy, count, params),
            Case(f"{name}: ours, one process", "ours", _ours(folder / "set", batch, 1), count, {**params, "threads": 1, **way}),
        ]
        if scope.workers > 1:
            threads = {**params, "threads": scope.workers}
            cases.append(
                Case(
                    f"{name}: ours, {scope.workers} threads", "ours", _ours(folder / "set", batch, scope.workers), count, threads
                )
            )
        for workers in (0,) if scope.quick else (0, scope.workers):
            cases += _peers(folder, tars, params, workers, scope.pick(32, PNG_FILES), absent is None)
        if absent is not None:
            yield from skip(STAGE, UNIT, [(f"{name}: LitData", "peer")], absent)
        yield from timed(STAGE, UNIT, cases, plan)


def _peers(folder: Path, tars: Sequence[Path], params: dict[str, Any], workers: int, png_files: int, litdata: bool) -> list[Case]:
    """Stock loaders with so many worker processes (0: in this one); on a part of a large set those that are slow, and no faster
    for a smaller one.
    """
    name, batch, count = params["group"], params["batch_size"], params["samples"]
    how = f"{workers} workers" if workers else "one process"
    told, few = {**params, "workers": workers}, min(count, png_files)
    part = tars[: -(-len(tars) * min(count, SMALL) // count)]
    streamed = sum(len(index.read(tar.with_suffix(INDEX))) for tar in part)
    stock = peers.webdataset_epoch([str(tar) for tar in part], batch, workers)
    png = peers.image_folder_epoch(folder / "png", batch, workers, few)
    cases = [
        Case(f"{name}: webdataset, {how}", "peer", stock, streamed, {**told, "samples": streamed}),
        Case(f"{name}: PNG folder, ImageFolder, {how}", "peer", png, few, {**told, "samples": few}),
    ]
    if litdata:
        cases.append(
            Case(f"{name}: LitData, {how}", "peer", peers.litdata_epoch(folder / "litdata", batch, workers), count, told)
        )
    return cases


def _ours(path: Path, batch: int, threads: int) -> Callable[[], None]:
    """An epoch of our loader: opened once, shuffled anew every time."""
    from shards.loader import Loader
    from shards.shardset import ShardSet

    loader = Loader(ShardSet.open(path).view("train"), batch, shuffle=True, threads=threads)
    epoch = 0

    def run() -> None:
        nonlocal epoch
        epoch += 1
        loader.set_epoch(epoch)
        for _ in loader:
            pass

    return run


def _cold(scope: Scope, path: Path, count: int, tars: Sequence[Path], size: int) -> Iterator[Record]:
    """With the files dropped from the page cache before every repeat; opening included."""
    name = f"{count:,} samples, batches of 32, cold"
    params = {"group": name, "samples": count, "batch_size": 32, "sample_bytes": size, "cache": "dropped"}
    if not floor.drop_from_cache(tars):
        yield from skip(STAGE, UNIT, [(f"{name}: ours", "ours")], "this system has no way to drop files from the page cache")
        return

    def drop() -> None:
        gc.collect()  # pages that are still mapped stay
        floor.drop_from_cache(tars)

    cases = [
        Case(f"{name}: disk read, in order", "floor", lambda: floor.read_files(tars), count, params, drop),
        Case(f"{name}: ours, one process", "ours", lambda: _ours(path, 32, 1)(), count, params, drop),
        Case(
            f"{name}: webdataset, one process",
            "peer",
            peers.webdataset_epoch([str(tar) for tar in tars], 32, 0),
            count,
            params,
            drop,
        ),
    ]
    yield from timed(STAGE, UNIT, cases, scope.plan)


def _streaming(scope: Scope, path: Path, count: int, tars: Sequence[Path], size: int) -> Iterator[Record]:
    """From a local HTTP server: ours, stock webdataset, and fetching the bytes alone."""
    from torch.utils.data import DataLoader

    from bench.http import fetch, serving
    from shards.stream import stream

    name = f"{count:,} samples, batches of 32, HTTP"
    params = {"group": name, "samples": count, "batch_size": 32, "sample_bytes": size, "server": "http.server, same machine"}
    with serving(path) as url:
        urls = [f"{url}/{tar.name}" for tar in tars]

        samples = stream(url, "train", shuffle=peers.SHUFFLE)
        batches = DataLoader(samples, batch_size=32, collate_fn=_collate)

        def ours() -> None:
            samples.set_epoch(samples.epoch + 1)
            for _ in batches:
                pass

        cases = [
            Case(f"{name}: bytes alone", "floor", lambda: fetch(urls), count, params),
            Case(f"{name}: ours", "ours", ours, count, params),
        ]
        if shutil.which("curl"):
            cases.append(Case(f"{name}: webdataset", "peer", peers.webdataset_epoch(urls, 32, 0), count, params))
        else:
            yield from skip(
                STAGE,
                UNIT,
                [(f"{name}: webdataset", "peer")],
                "webdataset reads HTTP through the command curl, which is not installed",
            )
        yield from timed(STAGE, UNIT, cases, scope.plan)


def _opening(scope: Scope) -> Iterator[Record]:
    """Opening a set of many small samples, up to knowing every class and place."""
    from shards.shardset import ShardSet

    count = scope.pick(10_000, 100_000)
    path = scope.room("opening") / "set"
    write_images(path, np.zeros((1, 8, 8), np.uint8), count, 64 * 10_000)
    params = {"samples": count, "shards": len(list(path.glob("*.tar")))}
    yield from timed(
        STAGE,
        "ms",
        [Case(f"opening a set of {count:,} samples", "ours", lambda: ShardSet.open(path).view("train"), 1, params)],
        scope.plan,
    )


def _collate(samples: list[dict[str, Any]]) -> tuple[Any, Any]:
    """A batch of what a stream yields: uint8 [batch, 512, 512] and int64 [batch]."""
    import torch

    return torch.from_numpy(np.stack([sample["npy"] for sample in samples])), torch.tensor([sample["cls"] for sample in samples])


def _members(tars: Sequence[Path]) -> tuple[list[Any], list[tuple[int, int]]]:
    """Mapped tars, and (tar, first byte) of every image in them, found by the standard library's tarfile."""
    mapped, places = [], []
    for number, tar in enumerate(tars):
        mapped.append(np.memmap(tar, np.uint8, "r"))
        with tarfile.open(tar) as archive:
            places += [(number, member.offset_data + 128) for member in archive if member.name.endswith(".npy")]
    return mapped, places


def _png_folder(folder: Path, images: np.ndarray, count: int) -> None:
    """The report's way: one RGB PNG a sample, in class folders; repeated images are hard links."""
    from PIL import Image

    made: list[Path] = []
    for i in range(count):
        path = folder / f"class{i % 10}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < min(len(images), PNG_FILES):
            Image.fromarray(images[i]).convert("RGB").save(path)
            made.append(path)
        else:
            path.hardlink_to(made[i % len(made)])
