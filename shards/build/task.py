"""What a worker does with one unit: decode its clips, compute the images, write the shards, sync and publish them."""

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
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common.errors import BadAudio, ShardwaveError
from shardwave.preprocess.config import Limits, SpectrogramConfig
from shardwave.preprocess.engines.base import Engine, Segment
from shardwave.preprocess.engines.registry import make_engine
from shardwave.shards.build import set_storage
from shardwave.shards.build.plan import file_crc32
from shardwave.shards.build.unit import Unit
from shardwave.shards.storage.any_path import AnyPath

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Job:
    """What all units of a build share."""

    audio: AnyPath
    folder: AnyPath
    config: SpectrogramConfig
    engine: str  # as `shardwave.preprocess.engines.registry.resolve` returns it
    device: str
    limits: Limits = Limits()

    @property
    def remote(self) -> bool:
        """Whether clips or shards lie in an object store."""
        return not isinstance(self.audio, Path) or not isinstance(self.folder, Path)

    @property
    def disk(self) -> Path:
        """The folder that is written to on this machine."""
        return self.folder if isinstance(self.folder, Path) else Path(tempfile.gettempdir())


class Slot(ctypes.Structure):
    """State of one worker, which the main process reads from shared memory: its unit's counts and the file being read."""

    _fields_ = (
        ("pid", ctypes.c_long),
        ("clips", ctypes.c_long),
        ("bad", ctypes.c_long),
        ("seconds", ctypes.c_double),
        ("path", ctypes.c_char * 4_096),
        ("stop", ctypes.c_bool),  # set by the main process: no further clip is wanted
    )


class Builder:
    """Builds units of one job in this thread, with one engine."""

    def __init__(self, job: Job, slot: Slot | None = None):
        self.job = job
        self.slot = Slot() if slot is None else slot
        self.slot.pid = os.getpid()

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine, made when it is first used."""
        return make_engine(self.job.engine, self.job.device, self.job.config)

    def warm_up(self) -> None:
        """Load and compile what the first clip would wait for; 16 bits, where the engine takes them, are what most have."""
        self.engine([np.ones(self.job.config.sample_rate, np.int16 if self.engine.integers else np.float32)])

    def build(self, unit: Unit) -> tuple[dict[str, Any], bool]:
        """Return the unit's record, and whether it was finished before.

        Raises:
            ShardwaveError: The unit could not be written, or memory ran out.
            RuntimeError: A defect; the message names the file that was being read.
        """
        try:
            record = set_storage.finished_record(self.job.folder, unit)
            return (record, True) if record is not None else (self._build(unit), False)
        except ShardwaveError:
            raise
        except OSError as error:
            raise disk_error(error, self.job.disk) from error
        except MemoryError as error:
            raise ShardwaveError(
                f"memory ran out{last_read(self.slot)}: run the same command again, with fewer --workers"
            ) from error
        except Exception as error:
            raise RuntimeError(f"a building process failed: {error!r}{last_read(self.slot)}") from error
        finally:
            self.slot.clips = self.slot.bad = self.slot.seconds = 0  # from here on the record counts

    def _build(self, unit: Unit) -> dict[str, Any]:
        job, slot = self.job, self.slot
        with set_storage.open_unit(job.audio, job.folder, unit, job.config) as (writer, paths):
            for i, made in self.engine.stream(self._noted(unit, paths), summed=True, limits=job.limits):
                if slot.stop:
                    raise InterruptedError("the build was stopped")
                number, planned = unit.clips[i]
                if isinstance(made, BadAudio):
                    writer.set_aside(planned, str(made), readable_crc32(paths[i]))
                    slot.bad += 1
                else:
                    crc32 = readable_crc32(paths[i]) if made.crc32 is None else made.crc32
                    writer.add(number, planned, made, crc32)
                    slot.seconds += made.samples / job.config.sample_rate
                slot.clips += 1
                paths.done(i)
            return writer.finish(identity(job.engine, job.device))

    def _noted(self, unit: Unit, paths: set_storage.UnitClips) -> Iterator[Path | Segment]:
        """The file or segment of each clip, its path noted in the slot when the engine asks for it."""
        for path, (_, planned) in zip(paths, unit.clips, strict=True):
            clip = planned.clip
            self.slot.path = os.fsencode(clip.path)[:4_095]
            yield Segment(path, clip.start, clip.end) if clip.is_segment else path


_own = threading.local()  # .builder: of each thread that is a worker


def start(job: Job, slots: Any, taken: Any) -> None:
    """Make this thread a worker of `job`, with the next of `slots`; `taken` counts those in use (`multiprocessing.Value`)."""
    with taken.get_lock():
        slot = slots[taken.value]
        taken.value += 1
    _own.builder = Builder(job, slot)


def warm_up() -> None:
    """Prepare this worker for its first unit."""
    _own.builder.warm_up()
    gc.freeze()  # what the libraries made: no collection looks through it again


def build(unit: Unit) -> tuple[dict[str, Any], bool]:
    """Build `unit` in this worker; see `Builder.build`."""
    built: tuple[dict[str, Any], bool] = _own.builder.build(unit)
    return built


def readable_crc32(path: Path) -> int | None:
    """CRC-32 of the file, or None where it cannot be read (decoding will say why)."""
    try:
        status = os.stat(path)
        return _crc32_of(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=1_024)
def _crc32_of(path: Path, size: int, mtime_ns: int) -> int:
    """CRC-32 of a file; a long file with many segments is read for it once."""
    return file_crc32(path)


@functools.cache
def identity(engine: str, device: str) -> dict[str, Any]:
    """What fixes the bytes beside inputs, options and seed: engine, device, CPU capability and library versions."""
    from shardwave.common.environment import environment

    found = environment()
    name = found["cpu"]
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    versions = {"python": found["python"], **found["versions"]}
    return {"engine": engine, "device": device, "device_name": name, "cpu_capability": cpu_capability(), "versions": versions}


def cpu_capability() -> str:
    """The widest vector instructions of this CPU, by which libraries choose their code: `AVX512`, `AVX2` or `baseline`."""
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return "AVX512" if features.get("avx512f") else "AVX2" if features.get("avx2") else "baseline"


def last_read(slot: Slot) -> str:
    """What a message says of the file that a worker read when it failed; the failure may be that of the one before."""
    return f" (the last file it began to read: {os.fsdecode(slot.path)})" if slot.path else ""


def disk_error(error: OSError, folder: AnyPath) -> ShardwaveError:
    """One clear line for a failed write."""
    if error.errno in FULL:
        return ShardwaveError(
            f"no space left while writing {folder} ({error.strerror}): make room, then run the same command again to finish it"
        )
    return ShardwaveError(f"{folder} could not be written: {error}; run the same command again to finish it")
