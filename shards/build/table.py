"""Build a shard set of features from a table, with splits, keys and manifest as in a set built from audio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.plan import spread
from shardwave.shards.build.shard_task import sample_meta
from shardwave.shards.build.writer import Shard, write_set
from shardwave.shards.clip import classes_of
from shardwave.shards.format.layout import NPY_HEADER, clip_key, is_url, padded
from shardwave.shards.format.layouts import STRIP
from shardwave.shards.format.manifest import Manifest, SetDescription
from shardwave.shards.format.shard_writer import Fields, Row
from shardwave.shards.sources import check_regular
from shardwave.shards.sources import table as source
from shardwave.shards.splits import assign


def build_table(table: Path | str, out: Path | str, options: BuildOptions | None = None) -> Manifest:
    """Build a shard set from a CSV or Parquet table with one row per clip.

    The samples have one view, `full`, and one array field, `features.npy`.

    Args:
        table: The table, see `shardwave.shards.sources.table.read`.
        out: Folder of the set.
        options: Options for columns and classes, seed, val_fraction, test_fraction, shard_mb, min_shards and
            overwrite; the other ones are not used.

    Returns:
        The manifest.

    Raises:
        UsageError: The table or an option is not valid, or `out` is a URL or holds a set (without
            `overwrite`) or something else.
    """
    options = options or BuildOptions()
    if options.layout == STRIP:
        raise UsageError("--layout strip needs audio: a --table has no spectrograms")
    if is_url(out) or options.address is not None:
        raise UsageError("--table needs a folder on this machine as --out, and no --address")
    seed = options.seed
    check_regular(Path(table), "--table")
    clips, features, names = source.read(Path(table), options)
    classes = classes_of(clips)
    splits = np.array(
        assign.assign(
            clips, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=seed
        )
    )
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
            shard, rank = spread(
                np.full(len(rows), float(record)), split, seed, options.min_shards, options.shard_mb
            )
            order = np.argsort(rank)
            for index in range(shard.max() + 1):
                numbers = rows[order][shard[order] == index]
                yield str(split), "full", index, map(row, numbers.tolist())

    description: SetDescription = {
        "config": {"table": names},
        "engine": None,
        "device": None,
        "seed": seed,
        "classes": classes,
        "feature_names": names,
        "clips": len(clips),
        "audio_seconds": 0.0,
    }
    return write_set(
        Path(out), shards(), fields, description, samples=len(clips), overwrite=options.overwrite
    )
