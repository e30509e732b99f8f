"""Plan of a build: the shard of every clip, determined by inputs, options and seed alone."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common import regular_file, typed
from shardwave.common.errors import ShardwaveError
from shardwave.common.typed import Json
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.preprocess.embeddings import registry
from shardwave.shards.build import survey
from shardwave.shards.build.survey import Survey
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import NPY_HEADER, padded
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.format.records import PlanHead, PlanLine
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.any_path import AnyPath

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedClip:
    """A clip with its shard and the state of its file.

    Attributes:
        clip: The clip.
        cls: Index of its class; -1 if unlabelled.
        assigned_split: Its split.
        shard: Index of its shard within the split.
        rank: Position within the shard.
        bytes: Size of the file; -1 if it does not exist.
        mtime_ns: Modification time of the file in nanoseconds.
        crc32: CRC-32 of the file; None before it is read.
    """

    clip: Clip
    cls: int
    assigned_split: str
    shard: int
    rank: int
    bytes: int
    mtime_ns: int
    crc32: int | None = None


FIELDS = [field.name for field in dataclasses.fields(PlannedClip) if field.name != "clip"]


class PlannedClips(Sequence[PlannedClip]):
    """Sequence of planned clips, stored as columns because objects would need several times the memory.

    Args:
        clips: The clips.
        splits: The split of each clip.
        numbers: int64 [clips, 6], the fields cls, shard, rank, bytes, mtime_ns and crc32 (-1: None).
    """

    def __init__(self, clips: Sequence[Clip], splits: Sequence[str], numbers: np.ndarray) -> None:
        self.clips, self.splits, self.numbers = clips, splits, numbers

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: Any) -> Any:
        cls, shard, rank, size, mtime_ns, crc32 = self.numbers[number].tolist()
        crc32 = None if crc32 < 0 else crc32
        return PlannedClip(self.clips[number], cls, self.splits[number], shard, rank, size, mtime_ns, crc32)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlannedClips) and (
            self.clips == other.clips
            and self.splits == other.splits
            and np.array_equal(self.numbers, other.numbers)
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """Options that determine the bytes of a set, and the clips by their numbers."""

    options: Json
    clips: PlannedClips

    def shards(self) -> dict[tuple[str, int], list[int]]:
        """Return the numbers of the clips of each shard, (split, index), in the order of writing."""
        names = sorted(set(self.clips.splits))
        code = {name: i for i, name in enumerate(names)}
        split = np.array([code[name] for name in self.clips.splits], np.int64)
        shard, rank = self.clips.numbers[:, 1], self.clips.numbers[:, 2]
        order = np.lexsort((rank, shard, split))
        first = np.flatnonzero(np.diff(split[order], prepend=-1) | np.diff(shard[order], prepend=-1))
        numbers, bounds = order.tolist(), [*first.tolist(), len(order)]
        begun = ((numbers[bounds[i]], bounds[i], bounds[i + 1]) for i in range(len(first)))
        return {(self.clips.splits[one], int(shard[one])): numbers[start:stop] for one, start, stop in begun}

    def with_crc32(self, crc32: Mapping[str, int]) -> Plan:
        """Return the plan with the CRC-32 of files, given by path."""
        numbers = self.clips.numbers.copy()
        numbers[:, 5] = [crc32.get(clip.path, -1) for clip in self.clips.clips]
        return Plan(self.options, PlannedClips(self.clips.clips, self.clips.splits, numbers))

    def write(self, path: AnyPath) -> None:
        """Write the plan atomically as JSON lines: the options, then one line per clip."""
        lines = bytearray(json.dumps({"options": self.options}).encode() + b"\n")
        names = [field.name for field in dataclasses.fields(Clip)]
        for planned in self.clips:
            values = {name: getattr(planned.clip, name) for name in names}
            lines += (
                json.dumps({**values, **{name: getattr(planned, name) for name in FIELDS}}).encode() + b"\n"
            )
        atomic.write_bytes(path, lines)


def make(
    clips: Sequence[Clip],
    classes: Sequence[str],
    splits: Sequence[str],
    audio: AnyPath,
    config: SpectrogramConfig,
    options: Json,
    found: Survey | None = None,
) -> Plan:
    """Plan the shards of clips by their sizes and the seed.

    Args:
        clips: The sorted clips.
        classes: Names of the classes.
        splits: The split of each clip.
        audio: The audio folder.
        config: Settings of the spectrogram.
        options: Options of the plan, with `seed`, `min_shards` and `shard_mb`.
        found: Headers of the clips; needed for slices of a fixed length and for strips, and then read if None
            or incomplete.
    """
    number_of: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    embeddings = (registry.find(registry.split(entry)[0]) for entry in config.embedding_entries)
    widths = [len(feature_names(config)), *(spec.width for spec in embeddings)]
    vectors = sum(padded(NPY_HEADER + 4 * width) + 512 for width in widths if width)
    if options.get("layout") == STRIP:
        found = found if found is not None and found.complete else survey.read(audio, clips, complete=True)
        frames = np.ones(len(clips))
        frames[found.readable] = [config.frames(samples) for samples in found.samples(config)]
        weights = config.image_size * frames + 2_560 + vectors
    else:
        record = padded(NPY_HEADER + config.image_size**2) + 2_560 + vectors
        weights = record * np.maximum(1.0, _slices(audio, clips, config, found))
    numbers = np.full((len(clips), 6), -1, np.int64)
    numbers[:, 0] = [number_of.get(clip.label, -1) for clip in clips]
    for split in sorted(set(splits)):
        rows = np.array([i for i, name in enumerate(splits) if name == split])
        numbers[rows, 1:3] = spread(
            weights[rows], split, options["seed"], options["min_shards"], options["shard_mb"]
        ).T
    numbers[:, 3:5] = np.fromiter(_stats(audio, clips), np.int64, 2 * len(clips)).reshape(-1, 2)
    made = Plan(options, PlannedClips(clips, splits, numbers))
    _log.info("planned %d clips", len(clips))
    return made


def spread(weights: np.ndarray, split: str, seed: int, min_shards: int, shard_mb: float) -> np.ndarray:
    """Distribute the clips of a split over shards, in random order so that every shard mixes the classes.

    A larger number of shards than `min_shards` is a multiple of it, so that as many workers have equal
    shares.

    Args:
        weights: Bytes of each clip's samples.
        split: Name of the split.
        seed: Seed of the order.
        min_shards: Minimum number of shards.
        shard_mb: Maximum size of a shard in MB.

    Returns:
        int64 [2, clips]: the shard of each clip, and its position in the shard.
    """
    order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(weights))
    total = weights.sum()
    count = min(len(weights), min_shards * math.ceil(total / (shard_mb * 1e6 * min_shards)))
    middle = np.cumsum(weights[order]) - weights[order] / 2
    made = np.empty((2, len(weights)), np.int64)
    shard = (middle / total * count).astype(np.int64)
    made[0, order] = np.cumsum(np.diff(shard, prepend=shard[:1]) > 0)  # numbers without gaps
    made[1, order] = np.arange(len(weights))
    return made


def read(path: AnyPath) -> Plan:
    """Read a plan that `Plan.write` wrote.

    Raises:
        ShardwaveError: The file cannot be read or is damaged; the message names the line.
    """
    remedy = "build the set anew with --overwrite"
    try:
        data = any_path.read_bytes(path)
    except OSError as error:
        raise ShardwaveError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from None
    first, *rest = data.rstrip(b"\n").split(b"\n")
    options = typed.check(typed.parse(first, path, remedy), PlanHead, path, remedy)["options"]
    clips, splits = [], []
    numbers = np.empty((len(rest), 6), np.int64)
    for number, line in enumerate(rest):
        where = f"{path} line {number + 2}"
        one = typed.check(typed.parse(line, where, remedy), PlanLine, where, remedy)
        clips.append(
            Clip(one["path"], one["label"], one["fold"], one["group"], one["split"], one["start"], one["end"])
        )
        splits.append(one["assigned_split"])
        crc32 = -1 if one["crc32"] is None else one["crc32"]
        numbers[number] = one["cls"], one["shard"], one["rank"], one["bytes"], one["mtime_ns"], crc32
    return Plan(options, PlannedClips(clips, splits, numbers))


def changes(old: Plan, new: Plan, audio: AnyPath, crc32: Mapping[str, int]) -> list[str]:
    """Describe the differences between two plans.

    A file is unchanged if its size and modification time are equal. If only the time differs, the file is
    compared by its CRC-32.

    Args:
        old: The plan of an existing set or build.
        new: The plan of this build.
        audio: The audio folder.
        crc32: CRC-32 by path of the files that were read for `old`.

    Returns:
        A line for each kind of difference; empty if the builds are equal.
    """
    # a plan records no layout if it is the default
    earlier, present = ({"layout": VIEWS, **plan.options} for plan in (old, new))
    values = {name: (earlier.get(name), present.get(name)) for name in {**earlier, **present}}
    differences = [
        f"{name} {_shown(one)} -> {_shown(other)}" for name, (one, other) in values.items() if one != other
    ]
    before = {clip.identity: number for number, clip in enumerate(old.clips.clips)}
    after = {clip.identity: number for number, clip in enumerate(new.clips.clips)}
    differences += _counted("added", [new.clips.clips[after[key]].name for key in after if key not in before])
    differences += _counted(
        "removed", [old.clips.clips[before[key]].name for key in before if key not in after]
    )

    def names_of(differs: Callable[[PlannedClip, PlannedClip], bool]) -> list[str]:
        both = ((old.clips[before[key]], new.clips[after[key]]) for key in after if key in before)
        return [other.clip.name for one, other in both if differs(one, other)]

    differences += _counted(
        "with another label, group, fold or split", names_of(lambda one, other: one.clip != other.clip)
    )
    content = _Content(audio, crc32)
    differences += _counted("with other content", names_of(content.differs))
    if not differences:
        differences += _counted("in another shard", names_of(_is_moved))
    return differences


def file_crc32(path: AnyPath) -> int:
    """Return the CRC-32 of a file (it detects changes; it does not authenticate).

    Raises:
        OSError: The file cannot be read, or it is not a regular file.
    """
    if not isinstance(path, Path):
        return zlib.crc32(any_path.read_bytes(path))
    crc, buffer = 0, memoryview(bytearray(1 << 18))  # small enough for the processor's cache
    with open(path, "rb", buffering=0, opener=regular_file.opener) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return crc


class _Content:
    """Compare files with the CRC-32 of an earlier read; a file of several clips is read once."""

    def __init__(self, audio: AnyPath, crc32: Mapping[str, int]) -> None:
        self._audio, self._crc32 = audio, crc32
        self._differs: dict[str, bool] = {}  # by path, for files read again

    def differs(self, old: PlannedClip, new: PlannedClip) -> bool:
        """Return whether the file of a clip has changed since it was planned or read."""
        path = old.clip.path
        if old.bytes != new.bytes:
            return True
        if old.mtime_ns == new.mtime_ns or path not in self._crc32:  # nothing was built from the file yet
            return False
        if path not in self._differs:
            try:
                self._differs[path] = file_crc32(self._audio / path) != self._crc32[path]
            except OSError:
                self._differs[path] = True
        return self._differs[path]


def _is_moved(old: PlannedClip, new: PlannedClip) -> bool:
    """Return whether two plans of a clip differ apart from the state of its file."""
    file_of_new = dataclasses.replace(old, bytes=new.bytes, mtime_ns=new.mtime_ns, crc32=new.crc32)
    return file_of_new != new


def _counted(what: str, paths: list[str]) -> list[str]:
    if not paths:
        return []
    plural, more = ("s", ", ...") if len(paths) > 1 else ("", "")
    return [f"{len(paths)} clip{plural} {what} ({paths[0]}{more})"]


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _stats(audio: AnyPath, clips: Sequence[Clip]) -> Iterator[int]:
    """Yield size and modification time (ns) of each clip's file, alternately; -1 and 0 for missing files."""
    for status in any_path.stats(audio, (clip.path for clip in clips)):
        yield from (-1, 0) if status is None else (status.size, status.mtime_ns)


def _slices(
    audio: AnyPath, clips: Sequence[Clip], config: SpectrogramConfig, found: Survey | None
) -> np.ndarray:
    """Estimate the number of slices of each clip from the headers: float64 [clips]."""
    if config.slice_seconds is None:
        return np.full(len(clips), float(config.slices))
    found = found if found is not None and found.complete else survey.read(audio, clips, complete=True)
    slices = np.ones(len(clips))
    slices[found.readable] = found.slices(config)
    return slices
