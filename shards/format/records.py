"""Types of the JSON records of a shard set, apart from the manifest."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from shardwave.common import typed
from shardwave.common.typed import Json
from shardwave.shards.format.layout import SPLIT
from shardwave.shards.format.manifest import Identity, ShardEntry

Time = Annotated[int, typed.Range(-(2**63), 2**63 - 1)]
Checksum = Annotated[int, typed.Range(0, 2**32 - 1)]
Number = Annotated[int, typed.Range(0, 999_999_999)]  # the maximum that fits into a shard's name
Split = Annotated[str, typed.Pattern(SPLIT.pattern)]


class SampleMeta(TypedDict):
    """The json field of a sample; times in seconds."""

    label: str | None
    path: str
    group: str | None
    fold: typed.Count | None
    view: str
    slice: typed.Count | None
    start: float
    length: float
    source_rate: typed.Count | None
    segment: NotRequired[list[float | None]]  # of a segment: start and end in the file, in seconds


class QuarantineEntry(TypedDict):
    """A line of quarantine.jsonl."""

    path: str
    start: NotRequired[float | None]  # of a segment, in seconds
    end: NotRequired[float | None]
    reason: str


class RemarkEntry(TypedDict):
    """A line of remarks.jsonl."""

    path: str
    start: NotRequired[float | None]  # of a segment, in seconds
    end: NotRequired[float | None]
    remark: str


class PlanHead(TypedDict):
    """First line of plan.jsonl and inputs.jsonl: the options of the build."""

    options: Json


class PlanLine(TypedDict):
    """Other lines of plan.jsonl and inputs.jsonl: a clip (see `clip.Clip` and `plan.PlannedClip`)."""

    path: str
    label: str | None
    fold: typed.Count | None
    group: str | None
    split: str | None
    start: float | None
    end: float | None
    cls: Annotated[int, typed.Range(-1, 2**31)]
    assigned_split: Split
    shard: Number
    rank: Number
    bytes: Annotated[int, typed.Range(-1, 2**63 - 1)]  # -1: the file did not exist
    mtime_ns: Time
    crc32: Checksum | None


class TaskRecord(TypedDict):
    """Record of a finished task (the shards of all views of some clips), SPLIT-NUMBER.json."""

    task: str
    split: Split
    shards: dict[str, ShardEntry]
    audio_seconds: Annotated[float, typed.Range(0)]
    quarantined: list[QuarantineEntry]
    remarks: list[RemarkEntry]
    unused_seconds: list[Annotated[float, typed.Range(0)]]  # audio in no full view, and audio in no slice
    crc32: dict[str, Checksum]
    builder: Identity
    objects: NotRequired[dict[str, list[int | str]]]  # name -> [size, version], in an object store


class DownloadRecord(TypedDict):
    """State of an interrupted download."""

    url: str
    validator: str | None
    total: typed.Count | None
