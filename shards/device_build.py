"""Builds on a device in one process: the engine decodes and computes, clip after clip, and threads write the shards meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from queue import SimpleQueue
from typing import Any

from preprocess.engine import ClipOutput, make_engine, stream
from preprocess.errors import BadAudio
from shards.plan import PlannedClip
from shards.pool import Progress
from shards.unit import Unit, UnitWriter, finished_record
from shards.worker import Job, add_clip, identity

TOGETHER = 4  # units that are written at once, their clips taken in turn
WAITING = 64  # clips that may wait to be written

Place = tuple[int, int, PlannedClip]  # unit, number, clip


def run(job: Job, units: Sequence[Unit], progress: Progress) -> list[dict[str, Any]]:
    """Build `units`, or keep what was finished before; the records, in any order."""
    with ThreadPoolExecutor(TOGETHER, "shards") as threads:
        found = list(threads.map(lambda unit: finished_record(job.folder, unit), units))
        for unit, record in zip(units, found, strict=True):
            if record is not None:
                progress.kept(len(unit.clips))
        left = [unit for unit, record in zip(units, found, strict=True) if record is None]
        records = [record for record in found if record is not None]
        if not left:
            return records
        order = list(_in_turn(left))
        room = threading.BoundedSemaphore(WAITING)
        engine = make_engine(job.engine, job.device, job.config)
        writing: dict[int, tuple[SimpleQueue[Any], Future[dict[str, Any]]]] = {}
        try:
            for i, made in stream(engine, (job.audio / planned.clip.path for _, _, planned in order)):
                at, number, planned = order[i]
                if at not in writing:
                    queue: SimpleQueue[Any] = SimpleQueue()
                    writing[at] = queue, threads.submit(_write, job, left[at], queue, room)
                while not room.acquire(timeout=1.0):
                    _raise_failures(writing)
                writing[at][0].put((number, planned, made))
                good = not isinstance(made, BadAudio)
                progress.clip(made.samples / job.config.sample_rate if isinstance(made, ClipOutput) else 0.0, good)
            return records + [future.result() for _, future in writing.values()]
        finally:
            for queue, _ in writing.values():
                queue.put(None)  # ends those that still wait for clips


def _in_turn(units: Sequence[Unit]) -> Iterator[Place]:
    """The clips of all units, each unit's in its order, TOGETHER units taking turns."""
    for start in range(0, len(units), TOGETHER):
        columns = [[(at, *clip) for clip in units[at].clips] for at in range(start, min(start + TOGETHER, len(units)))]
        for row in zip_longest(*columns):
            yield from (place for place in row if place is not None)


def _write(job: Job, unit: Unit, queue: SimpleQueue[Any], room: threading.BoundedSemaphore) -> dict[str, Any]:
    writer = UnitWriter(job.folder, unit, job.config, job.feature_count)
    try:
        for _ in unit.clips:
            item = queue.get()
            if item is None:
                raise InterruptedError("the build was ended")
            add_clip(job, writer, *item)
            room.release()
        return writer.finish(identity(job.engine, job.device))
    except BaseException:
        writer.abandon()
        raise


def _raise_failures(writing: dict[int, tuple[SimpleQueue[Any], Future[dict[str, Any]]]]) -> None:
    for _, future in writing.values():
        if future.done():
            future.result()
