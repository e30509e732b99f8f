"""Shard writing: samples in memory to finished, synced tar files; one process."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench import floor
from bench.record import Record
from bench.scope import Scope
from bench.timing import Case, timed

STAGE, UNIT = "writing", "MB/s"
SIZE = 512  # pixels, both axes
VIEWS = 11  # images of a clip


def run(scope: Scope) -> Iterator[Record]:
    """Our shard writer (tar, two indexes, BLAKE3, fsync), webdataset's ShardWriter, and one plain synced write of the bytes."""
    count = scope.pick(200, 1000)
    images = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE), np.uint8)
    folder = scope.room("writing")
    clear = functools.partial(shutil.rmtree, folder / "set", ignore_errors=True)
    params = {"group": "One process, synced to disk", "samples": count, "shape": [SIZE, SIZE], "dtype": "uint8"}
    megabytes = images.nbytes / 1e6
    way = {"way": {"step": "Writing shards", "work": VIEWS * SIZE * SIZE / 1e6, "when": "once"}}
    yield from timed(
        STAGE,
        UNIT,
        [
            Case("plain write and fsync", "floor", _plain(folder / "set", images), megabytes, params, clear),
            Case("our shard writer", "ours", _ours(folder / "set", images), megabytes, {**params, **way}, clear),
            Case("webdataset ShardWriter", "peer", _webdataset(folder / "set", images), megabytes, params, clear),
        ],
        scope.plan,
    )
    clear()


def _plain(folder: Path, images: np.ndarray) -> Callable[[], None]:
    def write() -> None:
        folder.mkdir()
        floor.write_file(folder / "plain", images.data.cast("B"))

    return write


def _ours(folder: Path, images: np.ndarray) -> Callable[[], None]:
    from shards import atomic
    from shards.shard_writer import ShardWriter, files_of

    def write() -> None:
        folder.mkdir()
        writer = ShardWriter(folder, "train", "full", 0, {"npy": ("uint8", images.shape[1:])})
        for number, image in enumerate(images):
            writer.add(
                f"{number:06d}",
                number % 10,
                number,
                {"label": "noise", "path": f"{number:06d}.wav", "view": "full"},
                {"npy": image},
            )
        entry = writer.close()
        writer.publish()
        for name, _ in files_of(entry):
            atomic.sync(folder / name)

    return write


def _webdataset(folder: Path, images: np.ndarray) -> Callable[[], None]:
    import webdataset

    def write() -> None:
        folder.mkdir()
        with webdataset.ShardWriter(str(folder / "%06d.tar"), maxsize=256e6, verbose=0) as writer:
            for number, image in enumerate(images):
                meta = {"label": "noise", "path": f"{number:06d}.wav", "view": "full"}
                writer.write({"__key__": f"{number:06d}", "npy": image, "cls": number % 10, "json": meta})

    return write
