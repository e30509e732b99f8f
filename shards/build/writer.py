"""Write shard sets from arrays: features of a table, or network outputs for another set's samples."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from shardwave.common.errors import ShardwaveError
from shardwave.common.progress import bar
from shardwave.shards.build import folder, lock
from shardwave.shards.build.finish import complete, write_lines
from shardwave.shards.format.layout import QUARANTINE
from shardwave.shards.format.manifest import BuildDescription, Manifest, SetDescription, ShardEntry, Splits
from shardwave.shards.format.shard_writer import Fields, Row, ShardWriter
from shardwave.shards.read.shardset import ShardSet

Shard = tuple[str, str, int, Iterable[Row]]  # split, view, index, rows


def write_set(
    out: Path,
    shards: Iterable[Shard],
    fields: Fields,
    description: SetDescription,
    *,
    samples: int,
    overwrite: bool = False,
) -> Manifest:
    """Write a shard set. After an interruption, another call starts again.

    Args:
        out: Folder of the set.
        shards: The shards.
        fields: Type and shape of each array field.
        description: Entries of the manifest.
        samples: Number of samples, for the progress bar.
        overwrite: Replace a set in the folder.

    Returns:
        The manifest.

    Raises:
        UsageError: The folder holds a set (without `overwrite`) or something else.
        ShardwaveError: The set cannot be written, or an array holds NaN or infinite values.
    """
    folder.examine(out)
    with folder.clear_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with lock.hold(out):
            folder.clean_temporaries(out)
            folder.prepare_anew(out, overwrite=overwrite)
            splits: Splits = defaultdict(lambda: defaultdict(list))
            with bar(total=samples, unit="sample", desc=out.name) as progress:
                for split, view, index, rows in shards:
                    splits[split][view].append(_write_shard(out, split, view, index, rows, fields, progress))
            write_lines(out / QUARANTINE, [])
            built = cast(BuildDescription, {**description, "quarantined": 0, "remarks": 0})
            return complete(out, built, fields, splits)


def write_array_set(
    out: Path,
    parent: ShardSet,
    arrays: Mapping[tuple[str, str], np.ndarray],
    config: Mapping[str, Any],
    *,
    field: str = "npy",
    device: str = "cpu",
    overwrite: bool = False,
) -> Manifest:
    """Write a copy of a shard set with other arrays, such as the outputs of a network.

    Keys, classes, clip numbers, json fields and the distribution to shards are those of the parent.

    Args:
        out: Folder of the new set.
        parent: The set to copy.
        arrays: Values of the field for the samples of each (split, view). [samples, ...].
        config: Description of the arrays. With the parent's fingerprint, it determines the fingerprint of the
            new set.
        field: Name of the array field.
        device: Device that computed the arrays, for the manifest.
        overwrite: Replace a set in the folder.

    Returns:
        The manifest.

    Raises:
        ValueError: An array has another number of rows than the parent has samples.
        UsageError: The folder holds a set (without `overwrite`) or something else.
    """
    first = next(iter(arrays.values()))
    fields: Fields = {field: (first.dtype.name, tuple(first.shape[1:]))}
    description: SetDescription = {
        "config": {**config, "parent": parent.fingerprint},
        "engine": None,
        "device": device,
        "feature_names": [],
        "seed": parent.manifest["seed"],
        "classes": parent.classes,
        "clips": parent.manifest["clips"],
        "audio_seconds": parent.manifest["audio_seconds"],
    }

    def shards() -> Iterator[Shard]:
        for (split, view), values in arrays.items():
            samples = parent.view(split, view)
            if len(values) != len(samples):
                raise ValueError(
                    f"arrays[{split!r}, {view!r}] must have {len(samples)} rows, got {len(values)}"
                )
            names = [samples.split_and_shard(i)[1] for i in range(len(values))]
            for shard, rows in itertools.groupby(range(len(values)), names.__getitem__):
                samples_of_shard = (
                    Row(
                        samples.key(i),
                        int(samples.cls[i]),
                        int(samples.clip[i]),
                        samples.meta(i),
                        {field: values[i]},
                    )
                    for i in rows
                )
                yield split, view, int(shard.removesuffix(".tar").rsplit("-", 1)[1]), samples_of_shard

    return write_set(
        out, shards(), fields, description, samples=sum(map(len, arrays.values())), overwrite=overwrite
    )


def _write_shard(
    out: Path, split: str, view: str, index: int, rows: Iterable[Row], fields: Fields, progress: Any
) -> ShardEntry:
    shard = ShardWriter(out, split, view, index, fields)
    try:
        for row in rows:
            for name, array in row.arrays.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise ShardwaveError(f"{row.key}: {name} holds NaN or infinite values")
            shard.add(*row)
            progress.update()
        entry = shard.close()
        folder.note_written(out, shard.stem)
        shard.publish()
        return entry
    except BaseException:
        shard.abandon()
        raise
