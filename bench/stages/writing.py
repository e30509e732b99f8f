"""Shard writing: samples in memory to synced tar files, in one process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.shards.format.shard_writer import ShardWriter

STAGE, UNIT = "writing", "MB/s"
SIZE = 512  # pixels, both axes
VIEWS = 11  # images of a clip


def run(scope: Scope) -> Iterator[Record]:
    """Measure our shard writer, webdataset's ShardWriter, and one plain synced write of the same bytes.

    Our writer makes a tar and two indexes, digests them with BLAKE3 and syncs them; the limit of it and of
    the plain write is the synced write or the digest. webdataset does not sync; its limit is one copy of the
    bytes.

    Yields:
        Records in MB of images per second.
    """
    count = scope.pick(200, 1000)
    images = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE), np.uint8)
    folder = scope.subfolder("writing") / "set"
    params = {
        "group": "One process, synced to disk",
        "samples": count,
        "shape": [SIZE, SIZE],
        "dtype": "uint8",
    }
    clip_step = {"clip_step": {"step": "Writing shards", "work": VIEWS * SIZE * SIZE / 1e6, "when": "once"}}

    def empty() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    def case(
        name: str,
        role: str,
        write: Callable[[Path, np.ndarray], None],
        resources: tuple[str, ...],
        **more: Any,
    ) -> Case:
        least, _ = scope.machine.least(**dict.fromkeys(resources, images.nbytes))
        work, shown = images.nbytes / 1e6, {**params, **more}
        return Case(name, role, lambda: write(folder, images), work, shown, empty, least=least)

    cases = [
        case("plain write and fsync", "baseline", _plain, ("disk_write",)),
        case("our shard writer", "ours", _ours, ("disk_write", "digest"), **clip_step),
        case("webdataset ShardWriter", "peer", _webdataset, ("cache",)),
        scope.machine.limit_case(
            "", images.nbytes / 1e6, params, disk_write=images.nbytes, digest=images.nbytes
        ),
    ]
    yield from timed(STAGE, UNIT, cases, scope.plan)
    shutil.rmtree(folder)


def _plain(folder: Path, images: np.ndarray) -> None:
    limits.write_file(folder / "plain", images.data.cast("B"))


def _ours(folder: Path, images: np.ndarray) -> None:
    writer = ShardWriter(folder, "train", "full", 0, {"npy": ("uint8", images.shape[1:])})
    for number, image in enumerate(images):
        writer.add(f"{number:06d}", number % 10, number, _meta(number), {"npy": image})
    writer.close()
    writer.publish()


def _webdataset(folder: Path, images: np.ndarray) -> None:
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxsize=256e6, verbose=0) as writer:
        for number, image in enumerate(images):
            writer.write(
                {"__key__": f"{number:06d}", "npy": image, "cls": number % 10, "json": _meta(number)}
            )


def _meta(number: int) -> dict[str, str]:
    return {"label": "noise", "path": f"{number:06d}.wav", "view": "full"}
