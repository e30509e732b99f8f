"""What one building process does: decode -> engine -> shards, unit after unit, on one thread (two beside an idle core)."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import gc
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from preprocess import log
from preprocess.config import SpectrogramConfig
from preprocess.engine import make_engine
from preprocess.engine_base import ClipOutput, Engine, Segment
from preprocess.errors import BadAudio, ShardwaveError
from preprocess.limits import Limits
from shards import scratch
from shards.clip_copies import ClipCopies
from shards.plan import PlannedClip, file_crc32
from shards.remote_unit import RemoteUnitWriter
from shards.remote_unit import finished_record as finished_objects
from shards.unit import Unit, UnitWriter
from shards.unit import finished_record as finished_files
from shards.url_path import Place, UrlPath

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOGETHER = 0.2  # seconds; clips that are done within are told of in one message


@dataclasses.dataclass(frozen=True)
class Job:
    """What all units of a build share."""

    audio: Place
    folder: Place
    config: SpectrogramConfig
    engine: str  # as `preprocess.engine.resolve` returns it
    device: str
    feature_count: int
    limits: Limits = Limits()

    @property
    def remote(self) -> bool:
        """Whether clips or shards lie in an object store."""
        return isinstance(self.audio, UrlPath) or isinstance(self.folder, UrlPath)

    @property
    def disk(self) -> Path:
        """The folder that is written to on this machine."""
        return self.folder if isinstance(self.folder, Path) else Path(tempfile.gettempdir())


class Builder:
    """Computes units of one job in this process, with one engine."""

    def __init__(self, job: Job, shared: Any = None):
        self.job = job
        self.engine: Engine = make_engine(job.engine, job.device, job.config)
        self.scratch = scratch.make() if job.remote else None
        self.reading: str | None = None  # the clip that the engine took last, for messages
        self._shared = shared  # where the parent finds its path too, should this process die

    def warm_up(self) -> None:
        """Load and compile what the first clip would wait for; 16 bits, where the engine takes them, are what most have."""
        self.engine([np.ones(self.job.config.sample_rate, np.int16 if self.engine.integers else np.float32)])

    def build(self, unit: Unit, progress: Callable[[float, bool], None]) -> UnitWriter:
        """The unit's writer, which has all of it and need only finish. `progress(seconds, good)` is called for every clip.

        Where a core would be idle, a thread writes each clip while the next is computed.
        """
        writer = self._writer(unit)
        try:
            with ThreadPoolExecutor(1, "write") as thread:
                paths, writing = self._paths(unit), None
                for i, made in self.engine.stream(self._noting(unit, paths), summed=True, limits=self.job.limits):
                    if not unit.spare:
                        progress(*self._add(writer, unit, i, made, paths))
                        continue
                    if writing is not None:
                        progress(*writing.result())
                    writing = thread.submit(self._add, writer, unit, i, made, paths)
                if writing is not None:
                    progress(*writing.result())
            return writer
        except BaseException:
            writer.abandon()
            raise

    def _noting(self, unit: Unit, paths: list[Path] | ClipCopies) -> Iterator[Path | Segment]:
        """What an engine decodes for each clip: the file or the segment of it, noted as being read when it is taken."""
        for path, (_, planned) in zip(paths, unit.clips, strict=True):
            clip = planned.clip
            self.reading = clip.path
            if self._shared is not None:
                self._shared.value = os.fsencode(self.reading)[: len(self._shared) - 1]
            yield Segment(path, clip.start, clip.end) if clip.is_segment else path

    def _add(
        self, writer: UnitWriter, unit: Unit, i: int, made: ClipOutput | BadAudio, paths: list[Path] | ClipCopies
    ) -> tuple[float, bool]:
        seconds = add_clip(self.job, writer, *unit.clips[i], made, paths[i])
        if isinstance(paths, ClipCopies):
            paths.done(i)
        return seconds, not isinstance(made, BadAudio)

    def _writer(self, unit: Unit) -> UnitWriter:
        folder, how = self.job.folder, (unit, self.job.config, self.job.feature_count)
        if isinstance(folder, Path):
            return UnitWriter(folder, *how)
        assert self.scratch is not None
        return RemoteUnitWriter(folder, self.scratch / unit.name, *how)

    def _paths(self, unit: Unit) -> list[Path] | ClipCopies:
        audio, clips = self.job.audio, [planned for _, planned in unit.clips]
        if isinstance(audio, Path):
            return [audio / planned.clip.path for planned in clips]
        assert self.scratch is not None
        return ClipCopies(audio, clips, self.scratch)


def add_clip(job: Job, writer: UnitWriter, number: int, planned: PlannedClip, made: ClipOutput | BadAudio, path: Path) -> float:
    """Hand what became of a clip, the file `path`, to its unit's writer; returns its seconds of audio."""
    if isinstance(made, BadAudio):
        writer.set_aside(planned, str(made), readable_crc32(path))
        return 0.0
    writer.add(number, planned, made, readable_crc32(path) if made.crc32 is None else made.crc32)
    return made.samples / job.config.sample_rate


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


def finished_record(job: Job, unit: Unit) -> dict[str, Any] | None:
    """The record of a unit that was finished before, if all that it names is there."""
    folder = job.folder
    return finished_files(folder, unit) if isinstance(folder, Path) else finished_objects(folder, unit)


@functools.cache
def identity(engine: str, device: str) -> dict[str, Any]:
    """What fixes the bytes beside inputs, options and seed: engine, device, CPU capability and library versions."""
    from preprocess.environment import environment

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


class Channel(Protocol):
    """The way to the parent."""

    def send(self, message: Any) -> None: ...

    def recv(self) -> Any: ...


class Server:
    """A worker process: builds the units it receives until its parent is gone; one is synced to disk while the next is made."""

    def __init__(self, connection: Channel, job: Job, shared: Any = None):
        self._connection = connection
        self._job = job
        self._shared = shared
        self._builder: Builder | None = None
        self._sending = threading.Lock()
        self._clips, self._seconds, self._bad = 0, 0.0, 0  # done since `_told_at`
        self._told_at = 0.0

    def run(self) -> None:
        """Serve until the parent is gone or something fails, which is told."""
        with ThreadPoolExecutor(1) as finisher, self._told():
            builder = self._builder = Builder(self._job, self._shared)
            builder.warm_up()
            gc.freeze()  # what the libraries made: no collection looks through it again
            before: Future[None] | None = None
            while True:
                self._tell("ready")
                unit = self._receive()
                record = finished_record(self._job, unit)
                if record is not None:
                    self._tell("kept", len(unit.clips))
                    self._tell("unit", record)
                    continue
                writer = builder.build(unit, self._clip)
                self._tell_clips()
                if before is not None:
                    before.result()
                before = finisher.submit(self._finish, writer)

    def _finish(self, writer: UnitWriter) -> None:
        with self._told():
            self._tell("unit", writer.finish(identity(self._job.engine, self._job.device)))

    def _receive(self) -> Unit:
        with self._parent():
            return self._connection.recv()

    def _clip(self, seconds: float, good: bool) -> None:
        self._clips, self._seconds, self._bad = self._clips + 1, self._seconds + seconds, self._bad + (not good)
        if time.monotonic() - self._told_at > TOGETHER:
            self._tell_clips()

    def _tell_clips(self) -> None:
        if self._clips:
            self._tell("clips", self._clips, self._seconds, self._bad)
        self._clips, self._seconds, self._bad, self._told_at = 0, 0.0, 0, time.monotonic()

    def _tell(self, *message: Any) -> None:
        with self._parent(), self._sending:
            self._connection.send(message)

    @contextlib.contextmanager
    def _parent(self) -> Iterator[None]:
        """Where the parent is gone, end at once: what is half-written bears temporary names only."""
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError):
            os._exit(1)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell the parent what fails."""
        try:
            yield
        except OSError as error:
            self._tell("failed", disk_error(error, self._job.disk))
        except ShardwaveError as error:
            self._tell("failed", error)
        except MemoryError:
            self._tell(
                "failed",
                ShardwaveError(f"memory ran out{self._last_read()}: run the same command again, with fewer --workers"),
            )
        except Exception as error:  # a defect: the parent raises it with this process's traceback
            self._tell("crashed", f"{error!r}{self._last_read()}", traceback.format_exc())

    def _last_read(self) -> str:
        return last_read(self._builder.reading if self._builder is not None else None)


def last_read(path: str | None) -> str:
    """What a message says of the file that a process read when it failed; the failure may be that of the one before."""
    return f" (the last file it began to read: {path})" if path else ""


def serve(connection: Connection, job: Job, shared: Any = None) -> None:
    """Run a worker process until its parent is gone.

    Args:
        connection: the way to the parent.
        job: what all units share.
        shared: shared memory (`multiprocessing`'s array of characters) for the path of the clip that is being read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    log.set_up()
    Server(connection, job, shared).run()


def disk_error(error: OSError, folder: Place) -> ShardwaveError:
    """One clear line for a failed write."""
    if error.errno in FULL:
        return ShardwaveError(
            f"no space left while writing {folder} ({error.strerror}): make room, then run the same command again to finish it"
        )
    return ShardwaveError(f"{folder} could not be written: {error}; run the same command again to finish it")
