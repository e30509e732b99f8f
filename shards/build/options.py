"""Options of a build apart from the spectrogram configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from shardwave.common.errors import require
from shardwave.preprocess.config import Limits
from shardwave.shards.format.layouts import LAYOUTS, VIEWS


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Args:
        labels: CSV file path,label[,fold][,group][,split][,start][,end]; None: the class of a clip is its
            parent folder.
        layout: `views`: the images of a clip and of its slices are samples; `strip`: one sample per clip,
            from which these images are cut when they are read.
        engine: Engine that computes the images, or `auto`.
        device: `cpu`, `cuda` or `auto`.
        workers: Number of processes, by default one per core; with a GPU, number of threads, by default up to
            four per GPU, by its free memory. The bytes of the set do not depend on it.
        seed: Seed of the split and of the order of samples in the shards.
        shard_mb: Maximum size of a shard in MB (10^6 bytes), by an estimate.
        min_shards: Minimum number of shards per split and view if there are as many clips; larger sets have a
            multiple of it.
        val_fraction: Fraction of the clips in split `val` if the data set gives neither folds nor that split.
        test_fraction: Fraction of the clips in split `test` if the data set gives neither folds nor that
            split.
        overwrite: Replace a set in the output folder.
        break_lock: Remove the lock that a killed build left at a URL.
        max_bad_fraction: Fraction of quarantined clips above which a build raises TooManyBadInputs.
        max_clip_minutes: Maximum length of a clip in minutes; longer clips are quarantined.
        max_missing_seconds: Maximum length of audio missing at the end of a truncated file, in seconds; clips
            with more are quarantined.
        address: HOST:PORT of a Ray cluster, or `auto`; None: this machine only.
        path_column: Column of the paths in the table of labels or features; by default found by its name.
        label_column: Column of the labels; by default found by its name.
        group_column: Column of the groups; by default found by its name.
        label_from: Source of the labels: a regular expression for the path whose first group is the value, or
            `tag:NAME`.
        group_from: Source of the groups, as `label_from`.
        split_from: Source of the splits, as `label_from`.
        groups: CSV file path,group[,start,end] that replaces the groups of the clips; clips of one group move
            to one fold or split.
        drop_columns: Columns of a table that are not used as features, separated by commas.
        classes: Names of the classes to use, separated by commas; None: all.
    """

    labels: Path | str | None = None
    layout: str = VIEWS
    engine: str = "auto"
    device: str = "auto"
    workers: int | None = None
    seed: int = 0
    shard_mb: float = 256.0
    min_shards: int = 8
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    overwrite: bool = False
    break_lock: bool = False
    max_bad_fraction: float = 0.05
    max_clip_minutes: float = 60.0
    max_missing_seconds: float = 0.1
    address: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    label_from: str | None = None
    group_from: str | None = None
    split_from: str | None = None
    groups: Path | str | None = None
    drop_columns: str | None = None
    classes: str | None = None

    def __post_init__(self) -> None:
        require(self.layout in LAYOUTS, f"layout must be one of {', '.join(LAYOUTS)}", self.layout)
        require(
            self.workers is None or 1 <= self.workers <= 1024,
            "workers must lie between 1 and 1024",
            self.workers,
        )
        require(0 <= self.seed < 2**32, "seed must lie between 0 and 4294967295", self.seed)
        require(0.1 <= self.shard_mb <= 8_000, "shard_mb must lie between 0.1 and 8000 MB", self.shard_mb)
        require(1 <= self.min_shards <= 10_000, "min_shards must lie between 1 and 10000", self.min_shards)
        require(0 <= self.val_fraction < 1, "val_fraction must lie between 0 and 1", self.val_fraction)
        require(0 <= self.test_fraction < 1, "test_fraction must lie between 0 and 1", self.test_fraction)
        require(
            0 <= self.max_bad_fraction <= 1,
            "max_bad_fraction must lie between 0 and 1",
            self.max_bad_fraction,
        )
        require(
            0 < self.max_clip_minutes <= 10_000,
            "max_clip_minutes must lie between 0 and 10000",
            self.max_clip_minutes,
        )
        require(
            0 <= self.max_missing_seconds < 1e6,
            "max_missing_seconds must be 0 or more",
            self.max_missing_seconds,
        )

    @property
    def limits(self) -> Limits:
        """Limits on the audio files."""
        return Limits(60 * self.max_clip_minutes, self.max_missing_seconds)
