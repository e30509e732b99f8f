"""What runs in a Ray actor: a building process as the local ones are, its messages told to the driver as a stream."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preprocess import log
from preprocess.errors import ShardwaveError
from shards import scratch
from shards.folder import PLAN
from shards.layout import BUILD
from shards.unit import Unit
from shards.worker import Job, Server


class RayWorker:
    """Builds the units it is given; on a node that does not see the folders, it says so instead."""

    def __init__(self, job: Job):
        log.set_up()
        self._job = job
        self._given: queue.Queue[Unit] = queue.Queue()
        self._told: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """`worker.Server`'s messages; before them ("host", name)."""
        yield "host", socket.gethostname()
        threading.Thread(target=Server(self, self._job).run, daemon=True).start()
        while True:
            yield self._told.get()

    def give(self, unit: Unit) -> None:
        """A unit to build."""
        self._given.put(unit)

    def close(self) -> None:
        """Remove what this process has in the node's temporary folder: it will be killed."""
        scratch.sweep()

    def send(self, message: tuple[Any, ...]) -> None:
        """See `worker.Channel`."""
        self._told.put(message)

    def recv(self) -> Unit:
        """See `worker.Channel`; raises ShardwaveError where this node cannot see what the unit is made of or goes to."""
        unit = self._given.get()
        folder, audio = self._job.folder, self._job.audio
        where = f"the node {socket.gethostname()} does not see"
        if isinstance(folder, Path) and not (folder / BUILD / PLAN).exists():
            raise ShardwaveError(f"{where} {folder}: --out must lie on storage that all nodes share under one path, or be a URL")
        if isinstance(audio, Path):
            for _, planned in unit.clips:
                path = audio / planned.clip.path
                if planned.bytes >= 0 and not os.path.lexists(path):
                    raise ShardwaveError(
                        f"{where} {path}: AUDIO must lie on storage that all nodes share under one path, or be a URL"
                    )
        return unit
