"""Build a shard task in a worker: decode its clips, compute the images, write and publish the shards."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import functools
import gc
import os
import tempfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardwave.common.errors import BadAudio, ShardwaveError
from shardwave.preprocess.config import Limits, SpectrogramConfig
from shardwave.preprocess.engines.base import ClipOutput, Engine, Segment
from shardwave.preprocess.engines.registry import make_engine, make_strip_engine
from shardwave.shards.build import set_storage
from shardwave.shards.build.plan import file_crc32
from shardwave.shards.build.shard_task import ShardTask
from shardwave.shards.clip import Clip
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.format.manifest import Identity
from shardwave.shards.format.records import TaskRecord
from shardwave.shards.storage.any_path import AnyPath

if TYPE_CHECKING:
    from shardwave.shards.build.embed_clips import ClipEmbedder, Vectors

Built = tuple[TaskRecord, bool]  # a task's record, and whether it was finished before
if TYPE_CHECKING:
    from shardwave.common.environment import Environment

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class BuildSpec:
    """Specification of a build, common to all its tasks.

    Args:
        audio: Folder or URL of the audio files.
        folder: Folder or URL of the set.
        config: Spectrogram configuration.
        engine: Engine, as returned by `shardwave.preprocess.engines.registry.resolve`.
        device: Device, likewise.
        limits: Limits on the audio files.
        layout: One of `layouts.LAYOUTS`.
    """

    audio: AnyPath
    folder: AnyPath
    config: SpectrogramConfig
    engine: str
    device: str
    limits: Limits = Limits()
    layout: str = VIEWS

    @property
    def remote(self) -> bool:
        """Whether the clips or the shards are in an object store."""
        return not isinstance(self.audio, Path) or not isinstance(self.folder, Path)

    @property
    def disk(self) -> Path:
        """Local folder that is written to."""
        return self.folder if isinstance(self.folder, Path) else Path(tempfile.gettempdir())


class Slot(ctypes.Structure):
    """State of a worker in shared memory: progress of its task, and the file being read."""

    _fields_ = (
        ("pid", ctypes.c_long),
        ("clips", ctypes.c_long),
        ("bad", ctypes.c_long),
        ("seconds", ctypes.c_double),
        ("path", ctypes.c_char * 4_096),
        ("stop", ctypes.c_bool),  # set by the main process to stop the worker before its next clip
    )


class Builder:
    """Builds shard tasks in this thread, with one engine.

    Args:
        spec: Specification of the build.
        slot: State for the main process; by default nobody reads it.
    """

    def __init__(self, spec: BuildSpec, slot: Slot | None = None) -> None:
        self.spec = spec
        self.slot = Slot() if slot is None else slot
        self.slot.pid = os.getpid()

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine, which is created when it is first used."""
        make = make_strip_engine if self.spec.layout == STRIP else make_engine
        return make(self.spec.engine, self.spec.device, self.spec.config)

    @functools.cached_property
    def embedder(self) -> ClipEmbedder | None:
        """The embedding networks, which are loaded when they are first used; None if there are none."""
        entries = self.spec.config.embedding_entries
        if not entries:
            return None
        from shardwave.shards.build.embed_clips import ClipEmbedder  # imports torch

        return ClipEmbedder(entries, self.spec.device)

    def warm_up(self) -> None:
        """Load and compile the engine for 16-bit integers if it accepts them, else for floats."""
        self.engine([np.ones(self.spec.config.sample_rate, np.int16 if self.engine.integers else np.float32)])
        _ = self.embedder

    def build(self, task: ShardTask) -> Built:
        """Build a task, unless it was finished before.

        Returns:
            The task's record, and whether it was finished before.

        Raises:
            ShardwaveError: The task could not be written, or memory ran out.
            RuntimeError: Another error occurred; the message names the file that was being read.
        """
        try:
            record = set_storage.finished_record(self.spec.folder, task)
            return (record, True) if record is not None else (self._build(task), False)
        except ShardwaveError:
            raise
        except OSError as error:
            raise disk_error(error, self.spec.disk) from error
        except MemoryError as error:
            raise ShardwaveError(
                f"memory ran out{last_read(self.slot)}: run the same command again, with fewer --workers"
            ) from error
        except Exception as error:
            raise RuntimeError(f"a building process failed: {error!r}{last_read(self.slot)}") from error
        finally:
            self.slot.clips = self.slot.bad = self.slot.seconds = 0  # the record replaces the counts

    def _build(self, task: ShardTask) -> TaskRecord:
        spec, slot = self.spec, self.slot
        with set_storage.open_task(spec.audio, spec.folder, task, spec.config, spec.layout) as (
            writer,
            paths,
        ):
            for i, made, vectors in self._computed(task, paths):
                if slot.stop:
                    raise InterruptedError("the build was stopped")
                number, planned = task.clips[i]
                if isinstance(made, BadAudio):
                    writer.quarantine(planned, str(made), readable_crc32(paths[i]))
                    slot.bad += 1
                else:
                    crc32 = readable_crc32(paths[i]) if made.crc32 is None else made.crc32
                    writer.add(number, planned, made, crc32, vectors)
                    slot.seconds += made.samples / spec.config.sample_rate
                slot.clips += 1
                paths.done(i)
            return writer.finish(identity(spec.engine, spec.device))

    def _computed(
        self, task: ShardTask, paths: set_storage.TaskClips
    ) -> Iterator[tuple[int, ClipOutput | BadAudio, Vectors | None]]:
        """Yield number, output of the engine and embedding fields of each clip."""
        stream = self.engine.stream(self._noted(task, paths), summed=True, limits=self.spec.limits)
        if self.embedder is None:
            yield from ((i, made, None) for i, made in stream)
            return
        from shardwave.shards.build.embed_clips import GROUP, spans_of

        while group := list(islice(stream, GROUP)):
            good = [(i, made) for i, made in group if not isinstance(made, BadAudio)]
            sources = [_source(paths[i], task.clips[i][1].clip) for i, _ in good]
            spans = [spans_of(self.spec.config, made.samples) for _, made in good]
            vectors = dict(
                zip((i for i, _ in good), self.embedder(sources, spans, self.spec.limits), strict=True)
            )
            for i, made in group:
                fields = vectors.get(i)
                yield (i, fields, None) if isinstance(fields, BadAudio) else (i, made, fields)

    def _noted(self, task: ShardTask, paths: set_storage.TaskClips) -> Iterator[Path | Segment]:
        """Yield the file or segment of each clip, and record its path in the slot."""
        for path, (_, planned) in zip(paths, task.clips, strict=True):
            clip = planned.clip
            self.slot.path = os.fsencode(clip.path)[:4_095]
            yield _source(path, clip)


def _source(path: Path, clip: Clip) -> Path | Segment:
    return Segment(path, clip.start, clip.end) if clip.is_segment else path


_own = threading.local()  # .builder: the builder of this thread, if it is a worker


def start(spec: BuildSpec, slots: Any, taken: Any) -> None:
    """Make this thread a worker. On CUDA, the workers use the GPUs of this machine in turn.

    Args:
        spec: Specification of the build.
        slots: Slots of all workers; the worker uses the next free one.
        taken: Number of slots in use, a `multiprocessing.Value`.
    """
    with taken.get_lock():
        number = taken.value
        taken.value += 1
    if spec.device == "cuda":
        import torch

        torch.cuda.set_device(number % torch.cuda.device_count())  # of this thread
    _own.builder = Builder(spec, slots[number])


def warm_up() -> None:
    """Load and compile the engine of this worker."""
    _own.builder.warm_up()
    gc.freeze()  # garbage collections skip the objects of the libraries


def build(task: ShardTask) -> Built:
    """Build a task in this worker, see `Builder.build`."""
    built: Built = _own.builder.build(task)
    return built


def readable_crc32(path: Path) -> int | None:
    """Return the CRC-32 of a file; None if it cannot be read, of which decoding reports the reason."""
    try:
        status = os.stat(path)
        return _crc32_of(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=1_024)
def _crc32_of(path: Path, size: int, mtime_ns: int) -> int:
    """Return the CRC-32 of a file; cached, so that a file with many segments is read once."""
    return file_crc32(path)


def identity(engine: str, device: str) -> Identity:
    """Return engine, device, CPU capability and library versions, on which the bytes of a set depend.

    Args:
        engine: The engine.
        device: The device; for `cuda`, the name is that of this thread's GPU.
    """
    current = _machine()
    name = current["cpu"]
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    return {
        "engine": engine,
        "device": device,
        "device_name": name,
        "cpu_capability": cpu_capability(),
        "versions": {"python": current["python"], **current["versions"]},
    }


@functools.cache
def _machine() -> Environment:
    from shardwave.common.environment import environment

    return environment()


@functools.cache
def cpu_capability() -> str:
    """Return the widest vector instructions of this CPU: `AVX512`, `AVX2` or `baseline`."""
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return "AVX512" if features.get("avx512f") else "AVX2" if features.get("avx2") else "baseline"


def last_read(slot: Slot) -> str:
    """Return a text with the last file that a worker began to read; the one before may be the cause."""
    return f" (the last file it began to read: {os.fsdecode(slot.path)})" if slot.path else ""


def disk_error(error: OSError, folder: AnyPath) -> ShardwaveError:
    """Return the error for a failed write below a folder."""
    if error.errno in FULL:
        return ShardwaveError(
            f"no space left while writing {folder} ({error.strerror}): free some space, then run the same "
            "command again to finish it"
        )
    return ShardwaveError(f"{folder} could not be written: {error}; run the same command again to finish it")
