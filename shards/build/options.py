"""Options of a build beside the spectrogram's; light to import, for the command line's defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from shardwave.common.errors import require
from shardwave.preprocess.config import Limits


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How a shard set is built."""

    labels: Path | str | None = None  # CSV path,label[,fold][,group][,split][,start][,end]; None: the class is the parent folder
    engine: str = "auto"
    device: str = "auto"
    workers: int | None = None  # processes; None: one per core; changes nothing in the bytes
    seed: int = 0
    shard_mb: float = 256.0  # MB (10^6 bytes); the size that shards stay below
    min_shards: int = 8  # per split and view, where there are as many clips; a larger set has a multiple
    val_fraction: float = 0.2  # of the clips, where neither folds nor splits are given
    test_fraction: float = 0.0
    overwrite: bool = False
    break_lock: bool = False  # remove the lock that a killed build left at a URL
    max_bad_fraction: float = 0.05  # of the clips; beyond it the exit status is 3
    max_clip_minutes: float = 60.0  # longer clips are quarantined
    max_missing_seconds: float = 0.1  # clips of which more is missing are quarantined
    address: str | None = None  # of a Ray cluster, or `auto`; None: this machine alone
    path_column: str | None = None  # of the table of labels or features; None: found by its name, as the two below
    label_column: str | None = None
    group_column: str | None = None
    label_from: str | None = None  # regular expression on the path, its first group is the value; or `tag:NAME`
    group_from: str | None = None
    split_from: str | None = None
    classes: str | None = None  # names separated by commas; None: all

    def __post_init__(self) -> None:
        require(self.workers is None or 1 <= self.workers <= 1024, "workers must lie between 1 and 1024", self.workers)
        require(0 <= self.seed < 2**32, "seed must lie between 0 and 4294967295", self.seed)
        require(0.1 <= self.shard_mb <= 8_000, "shard_mb must lie between 0.1 and 8000 MB", self.shard_mb)
        require(1 <= self.min_shards <= 10_000, "min_shards must lie between 1 and 10000", self.min_shards)
        require(0 <= self.val_fraction < 1, "val_fraction must lie between 0 and 1", self.val_fraction)
        require(0 <= self.test_fraction < 1, "test_fraction must lie between 0 and 1", self.test_fraction)
        require(0 <= self.max_bad_fraction <= 1, "max_bad_fraction must lie between 0 and 1", self.max_bad_fraction)
        require(0 < self.max_clip_minutes <= 10_000, "max_clip_minutes must lie between 0 and 10000", self.max_clip_minutes)
        require(0 <= self.max_missing_seconds < 1e6, "max_missing_seconds must be 0 or more", self.max_missing_seconds)

    @property
    def limits(self) -> Limits:
        """What of a file is accepted."""
        return Limits(60 * self.max_clip_minutes, self.max_missing_seconds)
