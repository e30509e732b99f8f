"""The plan of a build: which clip lies in which shard, from inputs, options and seed alone; and what changed since."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.config import SpectrogramConfig
from preprocess.errors import ShardwaveError
from shards import atomic
from shards.clip import Clip
from shards.layout import NPY_HEADER, padded
from shards.url_path import Place, UrlPath

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedClip:
    """A clip, its number in the sorted list (the line it stands on), where it goes, and what its file looked like."""

    clip: Clip
    cls: int  # -1: unlabelled
    partition: str
    unit: int  # index of the shard within the partition
    rank: int  # place within the shard
    bytes: int
    mtime_ns: int
    crc32: int | None = None  # of the file's bytes, once it was read


@dataclasses.dataclass(frozen=True)
class Plan:
    """Options that decide the bytes, and every clip in the order of its number."""

    options: dict[str, Any]
    clips: list[PlannedClip]

    def units(self) -> dict[tuple[str, int], list[int]]:
        """(partition, index) -> numbers of the clips, in the order they are written."""
        members: dict[tuple[str, int], list[int]] = defaultdict(list)
        for number, planned in enumerate(self.clips):
            members[planned.partition, planned.unit].append(number)
        return {unit: sorted(members[unit], key=lambda number: self.clips[number].rank) for unit in sorted(members)}

    def write(self, path: Place) -> None:
        """One line of JSON for the options, then one per clip; atomically."""
        lines = [json.dumps({"options": self.options})]
        for planned in self.clips:
            fields = {field.name: getattr(planned, field.name) for field in dataclasses.fields(planned) if field.name != "clip"}
            lines.append(json.dumps({**dataclasses.asdict(planned.clip), **fields}))
        atomic.write_bytes(path, ("\n".join(lines) + "\n").encode())


def make(
    clips: Sequence[Clip],
    classes: Sequence[str],
    partitions: Sequence[str],
    audio: Place,
    config: SpectrogramConfig,
    options: dict[str, Any],
    feature_count: int,
) -> Plan:
    """The plan for sorted `clips`: their partitions are given, their shards follow from their sizes and the seed."""
    number_of = {name: i for i, name in enumerate(classes)}
    stats = [_stat(audio / clip.path) for clip in clips]
    record = (
        padded(NPY_HEADER + config.image_size**2) + 2_560 + (padded(NPY_HEADER + 4 * feature_count) + 512 if feature_count else 0)
    )
    weights = record * np.maximum(1.0, _slices(audio, clips, config))
    unit, rank = np.zeros(len(clips), np.int64), np.zeros(len(clips), np.int64)
    for partition in sorted(set(partitions)):
        rows = np.array([i for i, name in enumerate(partitions) if name == partition])
        unit[rows], rank[rows] = spread(weights[rows], partition, options["seed"], options["min_shards"], options["shard_mb"])
    planned = [
        PlannedClip(
            clip,
            number_of.get(clip.label, -1) if clip.label is not None else -1,
            partitions[i],
            int(unit[i]),
            int(rank[i]),
            *stats[i],
        )
        for i, clip in enumerate(clips)
    ]
    made = Plan(options, planned)
    _log.info("planned %d clips into %d shards per view", len(clips), len(made.units()))
    return made


def spread(weights: np.ndarray, partition: str, seed: int, min_shards: int, shard_mb: float) -> tuple[np.ndarray, np.ndarray]:
    """The (shard, place in it) of each clip of a partition, from their bytes; shuffled, so that every shard mixes the classes."""
    order = np.random.default_rng([seed, zlib.crc32(partition.encode())]).permutation(len(weights))
    total = weights.sum()
    count = min(len(weights), max(min_shards, int(np.ceil(total / (shard_mb * 1e6)))))
    middle = np.cumsum(weights[order]) - weights[order] / 2
    unit, rank = np.empty(len(weights), np.int64), np.empty(len(weights), np.int64)
    unit[order] = np.unique((middle / total * count).astype(np.int64), return_inverse=True)[1]  # numbered without gaps
    rank[order] = np.arange(len(weights))
    return unit, rank


def read(path: Place) -> Plan:
    """Read what `Plan.write` wrote; raises ShardwaveError where it is not readable."""
    try:
        first, *rest = path.read_text().splitlines()
        options = json.loads(first)["options"]
        names = [field.name for field in dataclasses.fields(Clip)]
        clips = []
        for line in rest:
            values = json.loads(line)
            clip = Clip(**{name: values.pop(name) for name in names})
            clips.append(PlannedClip(clip, **values))
        return Plan(options, clips)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardwaveError(f"{path} cannot be read ({error}): build the set anew with --overwrite") from None


def changes(old: Plan, new: Plan, audio: Place, crc32: Mapping[str, int]) -> list[str]:
    """What differs between the plan of a set and the one that this command would make; empty: it is the same build.

    A file counts as unchanged when size and modification time are; where only the time differs, its bytes decide, by the `crc32`
    of what was read.
    """
    told = [f"{name} {_shown(old.options.get(name))} -> {_shown(new.options.get(name))}"
            for name in {**old.options, **new.options} if old.options.get(name) != new.options.get(name)]  # fmt: skip
    before = {planned.clip.path: planned for planned in old.clips}
    after = {planned.clip.path: planned for planned in new.clips}
    told += _counted("added", [path for path in after if path not in before])
    told += _counted("removed", [path for path in before if path not in after])
    both = [path for path in after if path in before]
    told += _counted("with another label, group, fold or split", [path for path in both if before[path].clip != after[path].clip])
    told += _counted(
        "with other content", [path for path in both if _differs(before[path], after[path], audio / path, crc32.get(path))]
    )
    if not told:
        told += _counted(
            "in another shard", [path for path in both if dataclasses.replace(before[path], **_file(after[path])) != after[path]]
        )
    return told


def file_crc32(path: Place) -> int:
    """CRC-32 of a file's bytes (to notice changes, not to authenticate)."""
    if isinstance(path, UrlPath):
        return zlib.crc32(path.read_bytes())
    crc, buffer = 0, memoryview(bytearray(1 << 18))  # it stays in cache
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return crc


def _differs(old: PlannedClip, new: PlannedClip, path: Place, crc32: int | None) -> bool:
    if old.bytes != new.bytes:
        return True
    if old.mtime_ns == new.mtime_ns or crc32 is None:  # crc32 None: not read yet, so nothing was made of it
        return False
    try:
        return file_crc32(path) != crc32
    except OSError:
        return True


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


def _stat(path: Place) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return -1, 0
    return stat.st_size, stat.st_mtime_ns


def _slices(audio: Place, clips: Sequence[Clip], config: SpectrogramConfig) -> np.ndarray:
    """Slices of each clip, as far as its header tells without decoding (for the size of shards only)."""
    if config.slice_seconds is None:
        return np.full(len(clips), float(config.slices))
    with ThreadPoolExecutor(32 if isinstance(audio, UrlPath) else 1, "headers") as pool:
        seconds = np.array(list(pool.map(lambda clip: _seconds(audio / clip.path), clips)))
    return np.where(np.isnan(seconds), 1.0, np.floor(seconds / config.slice_seconds))


def _seconds(path: Place) -> float:
    """What a file's header says; NaN where it is not readable."""
    import soundfile

    try:
        if isinstance(path, Path):
            return soundfile.info(path).duration
        with path.ranged() as file:
            try:
                return soundfile.info(file).duration
            finally:
                file.check()
    except (soundfile.LibsndfileError, OSError):
        return math.nan
