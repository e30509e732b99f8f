"""Building processes on all nodes of a Ray cluster: what `pool.Pool` is on one machine.

The driver holds the plan and gives out units; clips and shards go between workers and storage. A worker that is lost (its node,
or its memory) costs the units it had in hand: they are built again elsewhere, each ATTEMPTS times at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from preprocess.engine import CPU_ONLY, ENGINES, NOT_ON_CUDA, automatic
from preprocess.errors import ShardwaveError, UsageError
from shards import device_build
from shards.pool import ENVIRONMENT, Progress, take
from shards.progress import say
from shards.unit import Unit
from shards.worker import Job

ATTEMPTS = 3
SILENCE = 20.0  # seconds without a word from anybody, after which it is seen whether there are nodes


@dataclasses.dataclass
class _Worker:
    """An actor, and what is known of it."""

    actor: Any
    host: str | None = None  # None: not placed yet
    units: dict[str, Unit] = dataclasses.field(default_factory=dict)  # given, their records not seen yet
    clips: int = 0  # told of, in these units


class RayPool:
    """Actors of one job, one CPU each (and on a GPU their share of it); see `pool.Pool`."""

    def __init__(self, ray: Any, job: Job):
        self._ray = ray
        self._job = job
        self._workers: dict[Any, _Worker] = {}  # by their streams of messages
        self._idle: list[_Worker] = []
        self._lost: Counter[str] = Counter()
        self._unborn = 0  # lost before they ran: placed on a node that was gone already

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the actors."""
        with contextlib.suppress(self._ray.exceptions.RayError):  # those that are lost
            closing = [worker.actor.close.remote() for worker in self._workers.values() if worker.host is not None]
            self._ray.wait(closing, num_returns=len(closing), timeout=5) if closing else None
        for worker in self._workers.values():
            self._ray.kill(worker.actor)
        self._workers.clear()

    def start(self, workers: int) -> None:
        """Start actors until there are `workers`."""
        from shards.ray_worker import RayWorker

        share = 1 / device_build.THREADS if self._job.device == "cuda" else 0
        kind = self._ray.remote(RayWorker).options(
            num_cpus=1,
            num_gpus=share,
            max_concurrency=3,  # for `messages`, `give` and `close`
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": ENVIRONMENT},
        )
        while len(self._workers) < workers:
            actor = kind.remote(self._job)
            self._workers[actor.messages.options(num_returns="streaming").remote()] = _Worker(actor)

    def run(self, units: Sequence[Unit], workers: int, progress: Progress) -> list[dict[str, Any]]:
        """Build `units`, or keep what was finished before; the records, in any order."""
        workers = min(workers, len(units))
        self.start(workers)
        waiting = list(reversed(units))
        records: list[dict[str, Any]] = []
        while len(records) < len(units):
            for stream in self._talking():
                worker = self._workers[stream]
                try:
                    message = self._ray.get(next(stream))
                except (self._ray.exceptions.RayError, StopIteration) as error:
                    waiting += self._bury(stream, error, progress)
                    self.start(workers)
                    continue
                if self._hear(worker, message, progress, records):
                    self._idle.append(worker)
            while self._idle and waiting:
                worker, unit = self._idle.pop(), waiting.pop()
                worker.units[unit.name] = unit
                worker.actor.give.remote(unit)
        return records

    def _talking(self) -> Iterator[Any]:
        """The streams that have messages."""
        streams = list(self._workers)
        ready, _ = self._ray.wait(streams, num_returns=1, timeout=SILENCE)
        if not ready:
            if self._ray.cluster_resources().get("CPU", 0) < 1:
                raise ShardwaveError("the cluster has no nodes with CPUs any more: run the same command again to finish the set")
            if not any(worker.host for worker in self._workers.values()):
                say("waiting for a free CPU (or GPU) in the cluster; ray status shows what is in use")
        elif len(streams) > 1:  # and the others, so that none waits behind the first
            ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        yield from ready

    def _hear(self, worker: _Worker, message: tuple[Any, ...], progress: Progress, records: list[dict[str, Any]]) -> bool:
        """Do what the message says; whether the worker wants a unit."""
        if message[0] == "host":
            worker.host = message[1]
        elif message[0] in ("clips", "kept"):
            worker.clips += message[1]
        elif message[0] == "unit":
            worker.clips -= len(worker.units.pop(message[1]["unit"]).clips)
        return take(message, progress, records)

    def _bury(self, stream: Any, error: Exception, progress: Progress) -> list[Unit]:
        """Forget a lost worker; the units to build again."""
        worker = self._workers.pop(stream)
        self._ray.kill(worker.actor)  # where only the way to it is lost
        self._idle = [other for other in self._idle if other is not worker]
        broken = isinstance(error, self._ray.exceptions.RayTaskError) or getattr(error, "actor_init_failed", False)
        self._unborn += worker.host is None
        if broken or self._unborn > ATTEMPTS * (1 + len(self._workers)):
            reason = str(error).strip().splitlines()[-1]
            raise ShardwaveError(
                f"no building process could start in the cluster ({reason}): every node needs the same version of Shardwave"
            ) from error
        if worker.host is None:
            say("a building process was lost before it ran (its node is gone?): another takes its place")
            return []
        progress.again(worker.clips)
        lost = list(worker.units.values())
        self._lost.update(worker.units)
        often = [unit.name for unit in lost if self._lost[unit.name] == ATTEMPTS]
        if often:
            raise ShardwaveError(
                f"{ATTEMPTS} building processes were lost at the shard {often[0]}, the last on {worker.host}: run the same "
                "command again to finish the set, with fewer --workers if memory ran out"
            )
        names = ", ".join(unit.name for unit in lost) or "nothing"
        say(f"lost a building process on {worker.host} (killed, or its node is gone); to be built again: {names}")
        return lost


def cores(ray: Any, device: str) -> int:
    """Actors that the cluster has room for."""
    found = ray.cluster_resources()
    room = [found.get("CPU", 0)] + ([found.get("GPU", 0) * device_build.THREADS] if device == "cuda" else [])
    return max(1, int(min(room)))


def resolve(ray: Any, engine: str, device: str) -> tuple[str, str]:
    """The (engine, device) that `auto` stands for in the cluster: GPUs where it has some. Raises UsageError, as
    `preprocess.engine.resolve`; whether a node has what they need is seen there.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine}")
    if device == "cuda" and engine in CPU_ONLY:
        raise UsageError(NOT_ON_CUDA.format(engine))
    if device == "cuda" and not gpus:
        raise UsageError("device cuda: no node of the cluster offers Ray a GPU; use --device cpu")
    device = "cuda" if device != "cpu" and gpus and engine not in CPU_ONLY else "cpu"
    return automatic(device) if engine == "auto" else engine, device
