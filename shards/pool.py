"""One process per core, each building whole units; a process that dies ends the build with one line."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, Protocol

from preprocess.errors import ShardwaveError
from shards.unit import Unit
from shards.worker import Job, serve


class Progress(Protocol):
    """Who is told how far a build is."""

    def clip(self, seconds: float, good: bool) -> None:
        """A clip is done: seconds of audio, or set aside."""

    def kept(self, clips: int) -> None:
        """So many clips lie in a shard that was finished before."""


def run(job: Job, units: Sequence[Unit], workers: int, progress: Progress) -> list[dict[str, Any]]:
    """Build `units` in `workers` processes, or keep what was finished before; the records, in any order."""
    context = multiprocessing.get_context("spawn")  # forking a process that holds threads is not safe
    waiting = list(reversed(units))
    records: list[dict[str, Any]] = []
    processes: dict[connection.Connection, Any] = {}
    try:
        for _ in range(min(workers, len(units))):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
        while len(records) < len(units):
            for ready in connection.wait(list(processes)):
                assert isinstance(ready, connection.Connection)
                process = processes[ready]
                try:
                    kind, *values = ready.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    raise ShardwaveError(
                        f"a building process ended with {_status(process.exitcode)}: run the same command again to finish the set"
                        f"{', with fewer --workers if memory ran out' if process.exitcode == -9 else ''}"
                    ) from None
                if kind == "clip":
                    progress.clip(*values)
                    continue
                if kind == "kept":
                    progress.kept(*values)
                    continue
                if kind == "failed":
                    raise values[0]
                if kind == "crashed":
                    raise RuntimeError(f"a building process failed: {values[0]}") from RuntimeError(values[1])
                if kind == "unit":
                    records.append(values[0])
                ready.send(waiting.pop() if waiting else None)
    finally:
        for ours, process in processes.items():
            if len(records) < len(units):
                process.kill()
            process.join()
            with contextlib.suppress(OSError):
                ours.close()
    return records


def _status(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"status {code}"
