"""Builds a set of features alone from a table: the same splits, keys and manifest as a set built from audio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.plan import spread
from shardwave.shards.build.unit import sample_meta
from shardwave.shards.build.writer import Row, Shard, write_set
from shardwave.shards.clip import classes_of
from shardwave.shards.format.layout import NPY_HEADER, clip_key, is_url, padded
from shardwave.shards.format.shard_writer import Fields
from shardwave.shards.sources import check_regular
from shardwave.shards.sources import table as source
from shardwave.shards.splits import assign


def build_table(table: Path | str, out: Path | str, options: BuildOptions | None = None) -> dict[str, Any]:
    """Write the set `out` from a CSV or Parquet table, one row a clip (see `shardwave.shards.sources.table.read`); returns its manifest.

    Of `options` it takes what describes the table's columns and classes, and seed, val_fraction, test_fraction, shard_mb,
    min_shards and overwrite. Its samples have the one array field `features.npy` and the one view `full`.
    """
    options = options or BuildOptions()
    if is_url(out) or options.address is not None:
        raise UsageError("--table is written on this machine into a folder: give a folder as --out, and no --address")
    seed = options.seed
    check_regular(Path(table), "--table")
    clips, features, names = source.read(Path(table), options)
    classes = classes_of(clips)
    splits = np.array(assign.assign(clips, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=seed))
    fields: Fields = {"features.npy": ("float32", (len(names),))}
    record = padded(NPY_HEADER + 4 * len(names)) + 2_560

    def row(number: int) -> Row:
        clip = clips[number]
        cls = -1 if clip.label is None else classes.index(clip.label)
        start = clip.start or 0.0
        length = 0.0 if clip.end is None else clip.end - start
        meta = sample_meta(clip, view="full", index=None, start=start, length=length, source_rate=None)
        return Row(clip_key(number, clip.path), cls, number, meta, {"features.npy": features[number]})

    def shards() -> Iterator[Shard]:
        for split in sorted(set(splits)):
            rows = np.flatnonzero(splits == split)
            unit, rank = spread(np.full(len(rows), float(record)), split, seed, options.min_shards, options.shard_mb)
            ordered = rows[np.argsort(rank)]
            units = unit[np.argsort(rank)]
            for index in range(units.max() + 1):
                yield str(split), "full", index, (row(int(number)) for number in ordered[units == index])

    described_by = {
        "config": {"table": names}, "engine": None, "device": None, "seed": seed, "classes": classes, "feature_names": names,
        "clips": len(clips), "audio_seconds": 0.0,
    }  # fmt: skip
    return write_set(Path(out), shards(), fields, described_by, samples=len(clips), overwrite=options.overwrite)
