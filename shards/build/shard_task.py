"""Shard tasks of a build: some clips of a split, from which one shard per view is written."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from shardwave.common import typed
from shardwave.common.errors import DamagedFile
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.engines.base import ClipOutput
from shardwave.shards.build.plan import Plan, PlannedClip
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import BUILD, STORED, TAR, clip_key, shard_name, slice_key
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.format.manifest import Identity, ShardEntry
from shardwave.shards.format.records import QuarantineEntry, RemarkEntry, SampleMeta, TaskRecord
from shardwave.shards.format.shard_writer import Fields, Row, ShardWriter
from shardwave.shards.storage import atomic
from shardwave.shards.storage.any_path import AnyPath

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """The part of a build that one worker does at a time: one shard per view.

    Args:
        split: Split of the clips.
        index: Number of the shards.
        clips: Number and clip, in the order in which they are written.
    """

    split: str
    index: int
    clips: list[tuple[int, PlannedClip]]

    @property
    def name(self) -> str:
        """Name of the task, and stem of its record's file."""
        return f"{self.split}-{self.index:04d}"


class ShardTasks(Sequence[ShardTask]):
    """Sequence of the shard tasks of a plan, created on access: objects for all clips need too much memory.

    Args:
        planned: The plan.
    """

    def __init__(self, planned: Plan) -> None:
        self._clips = planned.clips
        self._tasks = list(planned.shards().items())

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, i: Any) -> Any:
        (split, index), numbers = self._tasks[i]
        return ShardTask(split, index, [(number, self._clips[number]) for number in numbers])


def array_fields(config: SpectrogramConfig, layout: str = VIEWS) -> Fields:
    """Return the array fields of the samples that are built with a configuration.

    Args:
        config: The configuration.
        layout: One of `layouts.LAYOUTS`. A strip has one column per frame, and vectors of all its views.
    """
    strips = layout == STRIP
    fields: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "npy": ("uint8", (config.image_size, None if strips else config.image_size))
    }
    widths = {"features.npy": len(feature_names(config))} if config.features else {}
    for name, _ in map(registry.split, config.embedding_entries):
        widths[registry.field(name)] = registry.find(name).width
    return fields | {
        name: ("float32", (None, width) if strips else (width,)) for name, width in widths.items()
    }


def sample_meta(
    clip: Clip, *, view: str, index: int | None, start: float, length: float, source_rate: int | None
) -> SampleMeta:
    """Return the json field of a sample.

    Args:
        clip: The clip.
        view: View of the sample, or `strip`.
        index: Number of the slice; None for the view `full`.
        start: Start in the file of the audio that the image shows, in seconds.
        length: Length of the audio that the image shows, with added silence, in seconds.
        source_rate: Sample rate of the file in Hz.
    """
    meta: SampleMeta = {
        "label": clip.label,
        "path": clip.path,
        "group": clip.group,
        "fold": clip.fold,
        "view": view,
        "slice": index,
        "start": round(start, 6),
        "length": round(length, 6),
        "source_rate": source_rate,
    }
    if clip.is_segment:
        meta["segment"] = [clip.start or 0.0, clip.end]
    return meta


class TaskWriter:
    """Writes the shards of a task. Call `add` or `quarantine` for each clip in order, then `finish`.

    Args:
        folder: Folder of the set.
        task: The task.
        config: Spectrogram configuration.
        layout: One of `layouts.LAYOUTS`.
    """

    def __init__(self, folder: Path, task: ShardTask, config: SpectrogramConfig, layout: str = VIEWS) -> None:
        self._folder = folder
        self._task = task
        self._config = config
        fields = array_fields(config, layout)
        names = (STRIP,) if layout == STRIP else ("full", "slice") if config.sliced else ("full",)
        self._shards = [ShardWriter(folder, task.split, name, task.index, fields) for name in names]
        self._seconds = 0.0
        self._unused = np.zeros(2)  # seconds of audio in no full view, and in no slice
        self._quarantined: list[QuarantineEntry] = []
        self._remarks: list[RemarkEntry] = []
        self._crc32: dict[str, int] = {}
        self._started = time.perf_counter()

    def add(
        self,
        number: int,
        planned: PlannedClip,
        made: ClipOutput,
        crc32: int | None,
        vectors: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Append the samples of a clip.

        Args:
            number: Number of the clip.
            planned: The clip.
            made: Output of the engine for the clip; of `make_strip_engine` for the layout `strip`.
            crc32: CRC-32 of the clip's file; None if it is not known.
            vectors: Embedding fields of the full clip and its slices, each [1 + slices, width].
        """
        clip, rate = planned.clip, self._config.sample_rate
        columns = {**({} if made.features is None else {"features.npy": made.features}), **(vectors or {})}
        if self._shards[0].view == STRIP:
            length = self._config.fitted(made.samples) / rate
            meta = sample_meta(
                clip,
                view=STRIP,
                index=None,
                start=clip.start or 0.0,
                length=length,
                source_rate=made.source_rate,
            )
            arrays = {"npy": made.full, **columns}
            self._shards[0].add(clip_key(number, clip.path), planned.cls, number, meta, arrays)
        else:
            self._add_views(number, planned, made, columns)
        self._seconds += made.samples / rate
        self._unused += np.array(self._config.unused(made.samples)) / rate
        if made.remark:
            self._remarks.append({**_segment(clip), "remark": made.remark})
            _log.info("%s is used, but %s", clip.name, made.remark)
        self._note(clip.path, crc32)

    def _add_views(
        self, number: int, planned: PlannedClip, made: ClipOutput, columns: Mapping[str, np.ndarray]
    ) -> None:
        clip, rate, hop = planned.clip, self._config.sample_rate, self._config.hop_length
        key = clip_key(number, clip.path)
        rows = [{"npy": image} for image in (made.full, *made.slices)]
        for name, column in columns.items():
            for row, values in zip(rows, column, strict=True):
                row[name] = values
        known = {"source_rate": made.source_rate}
        begin = clip.start or 0.0
        length = self._config.fitted(made.samples) / rate
        meta = sample_meta(clip, view="full", index=None, start=begin, length=length, **known)
        self._shards[0].add(key, planned.cls, number, meta, rows[0])
        slices = []
        for i, (start, stop) in enumerate(self._config.slice_bounds(made.samples)):
            length = (stop - start) * hop / rate
            meta = sample_meta(
                clip, view="slice", index=i, start=begin + start * hop / rate, length=length, **known
            )
            slices.append(Row(slice_key(key, i), planned.cls, number, meta, rows[1 + i]))
        if slices:
            self._shards[1].add_rows(slices)

    def quarantine(self, planned: PlannedClip, reason: str, crc32: int | None) -> None:
        """Quarantine a clip.

        Args:
            planned: The clip.
            reason: The reason, for quarantine.jsonl.
            crc32: CRC-32 of the clip's file; None if it is not known.
        """
        self._quarantined.append({**_segment(planned.clip), "reason": " ".join(reason.split())})
        _log.info("quarantined %s: %s", planned.clip.name, reason)
        self._note(planned.clip.path, crc32)

    def _note(self, path: str, crc32: int | None) -> None:
        if crc32 is not None:
            self._crc32[path] = crc32

    def finish(self, builder: Identity) -> TaskRecord:
        """Publish the shards (none if no clip was usable), then write and return the task's record.

        Nothing is synced to disk. After a power failure, the next build finds damaged files by the digests in
        the record.

        Args:
            builder: Engine, device and versions, see `worker.identity`.
        """
        entries: dict[str, ShardEntry] = {}
        if self._shards[0].samples:
            for shard in self._shards:
                entries[shard.view] = shard.close()
            for shard in self._shards:
                shard.publish()
        else:
            self.abandon()
        record: TaskRecord = {
            "task": self._task.name,
            "split": self._task.split,
            "shards": entries,
            "audio_seconds": self._seconds,
            "unused_seconds": self._unused.tolist(),
            "quarantined": self._quarantined,
            "remarks": self._remarks,
            "crc32": self._crc32,
            "builder": builder,
        }
        atomic.write_bytes(
            record_path(self._folder, self._task), atomic.json_bytes(record, indent=2), lasting=False
        )
        clips, seconds = len(self._task.clips), time.perf_counter() - self._started
        _log.info("%s: %d clips, %.1f s of audio, in %.2f s", self._task.name, clips, self._seconds, seconds)
        return record

    def abandon(self) -> None:
        """Remove the temporary files of the shards."""
        for shard in self._shards:
            shard.abandon()


class _Segment(TypedDict):
    path: str
    start: NotRequired[float | None]
    end: NotRequired[float | None]


def _segment(clip: Clip) -> _Segment:
    """Return the path of a clip and, if it is a segment, its start and end in seconds."""
    if clip.is_segment:
        return {"path": clip.path, "start": clip.start, "end": clip.end}
    return {"path": clip.path}


def parse_record(data: bytes, task: ShardTask) -> TaskRecord:
    """Parse the record of a task.

    Raises:
        DamagedFile: The record is damaged, or belongs to another task.
    """
    where = f"the record of {task.name}"
    record = typed.check(typed.parse(data, where), TaskRecord, where)
    names = {view: shard_name(task.split, view, task.index) + TAR for view in STORED}
    if record["task"] != task.name or any(
        names.get(view) != entry["file"] for view, entry in record["shards"].items()
    ):
        raise DamagedFile(f"{where} is of another task")
    return record


def record_path(folder: AnyPath, task: ShardTask) -> AnyPath:
    """Return the path of a finished task's record during the build."""
    return folder / BUILD / f"{task.name}.json"
