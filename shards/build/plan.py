"""The plan of a build: which clip lies in which shard, from inputs, options and seed alone; and what changed since."""

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
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.shards.build import survey
from shardwave.shards.build.survey import Survey
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import NPY_HEADER, padded
from shardwave.shards.format.records import PlanHead, PlanLine
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.any_path import AnyPath

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedClip:
    """A clip, its number in the sorted list (the line it stands on), where it goes, and what its file looked like."""

    clip: Clip
    cls: int  # -1: unlabelled
    assigned_split: str
    unit: int  # index of the shard within the split
    rank: int  # place within the shard
    bytes: int
    mtime_ns: int
    crc32: int | None = None  # of the file's bytes, once it was read


COLUMNS = ("cls", "unit", "rank", "bytes", "mtime_ns")  # of `PlannedClips.numbers`, before crc32
FIELDS = [field.name for field in dataclasses.fields(PlannedClip) if field.name != "clip"]


class PlannedClips(Sequence[PlannedClip]):
    """Planned clips in columns, each an object only where it is asked for: objects would need several times the memory.

    `numbers`: int64 [clips, 6], the fields cls, unit, rank, bytes, mtime_ns and crc32 (-1: None).
    """

    def __init__(self, clips: Sequence[Clip], splits: Sequence[str], numbers: np.ndarray):
        self.clips, self.splits, self.numbers = clips, splits, numbers

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: Any) -> Any:
        cls, unit, rank, size, mtime_ns, crc32 = self.numbers[number].tolist()
        crc32 = None if crc32 < 0 else crc32
        return PlannedClip(self.clips[number], cls, self.splits[number], unit, rank, size, mtime_ns, crc32)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlannedClips) and (
            self.clips == other.clips and self.splits == other.splits and np.array_equal(self.numbers, other.numbers)
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """Options that decide the bytes, and every clip in the order of its number."""

    options: dict[str, Any]
    clips: PlannedClips

    def units(self) -> dict[tuple[str, int], list[int]]:
        """(split, index) -> numbers of the clips, in the order they are written."""
        names = sorted(set(self.clips.splits))
        code = {name: i for i, name in enumerate(names)}
        split = np.array([code[name] for name in self.clips.splits], np.int64)
        unit, rank = self.clips.numbers[:, 1], self.clips.numbers[:, 2]
        order = np.lexsort((rank, unit, split))
        first = np.flatnonzero(np.diff(split[order], prepend=-1) | np.diff(unit[order], prepend=-1))
        numbers, bounds = order.tolist(), [*first.tolist(), len(order)]
        begun = ((numbers[bounds[i]], bounds[i], bounds[i + 1]) for i in range(len(first)))
        return {(self.clips.splits[one], int(unit[one])): numbers[start:stop] for one, start, stop in begun}

    def with_crc32(self, crc32: Mapping[str, int]) -> Plan:
        """The same, with the checksums of the files at these paths."""
        numbers = self.clips.numbers.copy()
        numbers[:, 5] = [crc32.get(clip.path, -1) for clip in self.clips.clips]
        return Plan(self.options, PlannedClips(self.clips.clips, self.clips.splits, numbers))

    def write(self, path: AnyPath) -> None:
        """One line of JSON for the options, then one per clip; atomically."""
        lines = bytearray(json.dumps({"options": self.options}).encode() + b"\n")
        names = [field.name for field in dataclasses.fields(Clip)]
        for planned in self.clips:
            values = {name: getattr(planned.clip, name) for name in names}
            lines += json.dumps({**values, **{name: getattr(planned, name) for name in FIELDS}}).encode() + b"\n"
        atomic.write_bytes(path, lines)


def make(
    clips: Sequence[Clip],
    classes: Sequence[str],
    splits: Sequence[str],
    audio: AnyPath,
    config: SpectrogramConfig,
    options: dict[str, Any],
    found: Survey | None = None,
) -> Plan:
    """The plan for sorted `clips`: their splits are given, their shards follow from their sizes and the seed.

    Sizes depend on the clips' lengths where slices have a fixed length: these come from `found`, or are read from the headers.
    """
    number_of: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    feature_count = len(feature_names(config))
    record = (
        padded(NPY_HEADER + config.image_size**2) + 2_560 + (padded(NPY_HEADER + 4 * feature_count) + 512 if feature_count else 0)
    )
    weights = record * np.maximum(1.0, _slices(audio, clips, config, found))
    numbers = np.full((len(clips), 6), -1, np.int64)
    numbers[:, 0] = [number_of.get(clip.label, -1) for clip in clips]
    for split in sorted(set(splits)):
        rows = np.array([i for i, name in enumerate(splits) if name == split])
        numbers[rows, 1:3] = spread(weights[rows], split, options["seed"], options["min_shards"], options["shard_mb"]).T
    numbers[:, 3:5] = np.fromiter(_stats(audio, clips), np.int64, 2 * len(clips)).reshape(-1, 2)
    made = Plan(options, PlannedClips(clips, splits, numbers))
    _log.info("planned %d clips", len(clips))
    return made


def spread(weights: np.ndarray, split: str, seed: int, min_shards: int, shard_mb: float) -> np.ndarray:
    """The shard, and the place in it, of each clip of a split, from their bytes: int64 [2, clips]; shuffled, so that every
    shard mixes the classes. Beyond `min_shards` there are a multiple of it, so that as many workers build or read equal shares.
    """
    order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(weights))
    total = weights.sum()
    count = min(len(weights), min_shards * math.ceil(total / (shard_mb * 1e6 * min_shards)))
    middle = np.cumsum(weights[order]) - weights[order] / 2
    made = np.empty((2, len(weights)), np.int64)
    shard = (middle / total * count).astype(np.int64)
    made[0, order] = np.cumsum(np.diff(shard, prepend=shard[:1]) > 0)  # numbered without gaps
    made[1, order] = np.arange(len(weights))
    return made


def read(path: AnyPath) -> Plan:
    """Read what `Plan.write` wrote; raises ShardwaveError, naming the file and the line, where it is damaged."""
    remedy = "build the set anew with --overwrite"
    try:
        data = any_path.read_bytes(path)
    except OSError as error:
        raise ShardwaveError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from None
    first, *rest = data.rstrip(b"\n").split(b"\n")
    options = typed.check(typed.parse(first, path, remedy), PlanHead, path, remedy)["options"]
    names = [field.name for field in dataclasses.fields(Clip)]
    clips, splits = [], []
    numbers = np.empty((len(rest), 6), np.int64)
    for number, line in enumerate(rest):
        where = f"{path} line {number + 2}"
        values: dict[str, Any] = dict(typed.check(typed.parse(line, where, remedy), PlanLine, where, remedy))
        clips.append(Clip(**{name: values[name] for name in names}))
        splits.append(values["assigned_split"])
        crc32 = values["crc32"]
        numbers[number] = [*(values[name] for name in COLUMNS), -1 if crc32 is None else crc32]
    return Plan(options, PlannedClips(clips, splits, numbers))


def changes(old: Plan, new: Plan, audio: AnyPath, crc32: Mapping[str, int]) -> list[str]:
    """What differs between the plan of a set and the one that this command would make; empty: it is the same build.

    A file counts as unchanged when size and modification time are; where only the time differs, its bytes decide, by the `crc32`
    of what was read.
    """
    told = [f"{name} {_shown(old.options.get(name))} -> {_shown(new.options.get(name))}"
            for name in {**old.options, **new.options} if old.options.get(name) != new.options.get(name)]  # fmt: skip
    before = {clip.identity: number for number, clip in enumerate(old.clips.clips)}
    after = {clip.identity: number for number, clip in enumerate(new.clips.clips)}
    told += _counted("added", [new.clips.clips[after[key]].name for key in after if key not in before])
    told += _counted("removed", [old.clips.clips[before[key]].name for key in before if key not in after])

    def where(differs: Callable[[PlannedClip, PlannedClip], bool]) -> list[str]:
        both = ((old.clips[before[key]], new.clips[after[key]]) for key in after if key in before)
        return [other.clip.name for one, other in both if differs(one, other)]

    told += _counted("with another label, group, fold or split", where(lambda one, other: one.clip != other.clip))
    content = _Content(audio, crc32)
    told += _counted("with other content", where(content.differs))
    if not told:
        told += _counted("in another shard", where(lambda one, other: dataclasses.replace(one, **_file(other)) != other))
    return told


def file_crc32(path: AnyPath) -> int:
    """Return the CRC-32 of a file's bytes (to notice changes, not to authenticate).

    Raises:
        OSError: the file cannot be read, or it is not a regular file.
    """
    if not isinstance(path, Path):
        return zlib.crc32(any_path.read_bytes(path))
    crc, buffer = 0, memoryview(bytearray(1 << 18))  # it stays in cache
    with open(path, "rb", buffering=0, opener=regular_file.opener) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return crc


class _Content:
    """Compares files with what was read of them before; a file of several clips is read once."""

    def __init__(self, audio: AnyPath, crc32: Mapping[str, int]):
        self._audio, self._crc32 = audio, crc32
        self._differs: dict[str, bool] = {}  # of the files that were read again

    def differs(self, old: PlannedClip, new: PlannedClip) -> bool:
        """Whether the file of a clip has other content than when it was planned or read before."""
        path = old.clip.path
        if old.bytes != new.bytes:
            return True
        if old.mtime_ns == new.mtime_ns or path not in self._crc32:  # not read yet: nothing was made of it
            return False
        if path not in self._differs:
            try:
                self._differs[path] = file_crc32(self._audio / path) != self._crc32[path]
            except OSError:
                self._differs[path] = True
        return self._differs[path]


def _file(planned: PlannedClip) -> dict[str, Any]:
    return {"bytes": planned.bytes, "mtime_ns": planned.mtime_ns, "crc32": planned.crc32}


def _counted(what: str, paths: list[str]) -> list[str]:
    return (
        [f"{len(paths)} clip{'s' if len(paths) > 1 else ''} {what} ({paths[0]}{', ...' if len(paths) > 1 else ''})"]
        if paths
        else []
    )


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _stats(audio: AnyPath, clips: Sequence[Clip]) -> Iterator[int]:
    """Bytes and time of each clip's file, one after the other; -1 and 0 where there is none."""
    for found in any_path.stats(audio, (clip.path for clip in clips)):
        yield from (-1, 0) if found is None else (found.size, found.mtime_ns)


def _slices(audio: AnyPath, clips: Sequence[Clip], config: SpectrogramConfig, found: Survey | None) -> np.ndarray:
    """Slices of each clip as far as is known without decoding (for the size of shards only)."""
    if config.slice_seconds is None:
        return np.full(len(clips), float(config.slices))
    found = found if found is not None and found.whole else survey.take(audio, clips, whole=True)
    slices = np.ones(len(clips))
    slices[found.readable] = found.slices(config)
    return slices
