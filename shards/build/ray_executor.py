"""Executor of a build on a Ray cluster. Ray repeats the tasks whose worker or node is lost."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from shardwave.common import log
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.preprocess.engines.registry import CPU_ONLY, ENGINES, NOT_ON_CUDA, automatic
from shardwave.shards.build.executors import AGAIN, ENVIRONMENT, GPU_THREADS, BuildExecutor
from shardwave.shards.build.folder import PLAN
from shardwave.shards.build.ray_cluster import reason
from shardwave.shards.build.shard_task import ShardTask
from shardwave.shards.build.worker import Builder, BuildSpec, Built
from shardwave.shards.format.layout import BUILD

RETRIES = 3
SILENCE = 20.0  # seconds without a finished task, after which the resources of the cluster are checked

_builder: Builder | None = None  # the builder of a Ray worker; Ray starts new workers for every build


class RayExecutor(BuildExecutor):
    """Builds shard tasks on a Ray cluster. A task uses one CPU and, on GPUs, 1 / GPU_THREADS of a GPU.

    Args:
        ray: The package, connected to the cluster.
        spec: Specification of the build.
        count: Number of tasks at the same time.
    """

    def __init__(self, ray: Any, spec: BuildSpec, count: int) -> None:
        super().__init__(count)
        self._ray = ray
        self._spec = ray.put(spec)
        self._build_task = ray.remote(build_task).options(
            num_cpus=1,
            num_gpus=1 / GPU_THREADS if spec.device == "cuda" else 0,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": ENVIRONMENT},
        )
        self._last = time.monotonic()  # time of the last result
        self._reported = False

    def warm_up(self) -> None:
        """Start the workers and load their libraries."""
        for _ in range(self.count):
            self._build_task.remote(self._spec, None)

    def submit(self, task: ShardTask) -> Future[Built]:
        """Start to build a task."""
        future: Future[Built] = self._build_task.remote(self._spec, task).future()
        return future

    def result(self, future: Future[Built]) -> Built:
        """Return the result of a finished future.

        Raises:
            ShardwaveError: The task could not be built, or its workers were lost RETRIES + 1 times.
        """
        self._last = time.monotonic()
        try:
            return future.result()
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (ShardwaveError, RuntimeError)):
                raise error.cause from None
            raise ShardwaveError(
                f"a node could not build a shard ({reason(error.cause)}): every node needs the same version "
                "of Shardwave"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise ShardwaveError(
                f"building processes were lost {RETRIES + 1} times at one shard ({reason(error)}): {AGAIN}"
            ) from error

    def check(self) -> None:
        """Raise ShardwaveError if the cluster has no CPUs any more. Print once if no task finishes."""
        if time.monotonic() - self._last > SILENCE:
            self._last = time.monotonic()
            if self._ray.cluster_resources().get("CPU", 0) < 1:
                raise ShardwaveError(
                    "the cluster has no nodes with CPUs any more: run the same command again to finish the "
                    "set"
                )
            if not self._reported:
                say(
                    f"no shard was finished for {SILENCE:.0f} s: `ray status` shows whether the tasks wait "
                    "for CPUs or GPUs"
                )
            self._reported = True

    def close(self) -> None:
        """Disconnect from the cluster, which stops the tasks."""
        self._ray.shutdown()


def build_task(spec: BuildSpec, task: ShardTask | None) -> Built | None:
    """Build a task in a Ray worker.

    Args:
        spec: Specification of the build.
        task: The task; None only loads libraries and compiles the engine.

    Returns:
        The task's record and whether it was finished before; None without a task.

    Raises:
        ShardwaveError: The task could not be built, or this node does not see the clips or the set's folder.
    """
    global _builder
    if _builder is None:
        log.set_up()
        _builder = Builder(spec)
        _builder.warm_up()
    if task is None:
        return None
    where = f"the node {socket.gethostname()} does not see"
    if isinstance(spec.folder, Path) and not (spec.folder / BUILD / PLAN).exists():
        raise ShardwaveError(
            f"{where} {spec.folder}: --out must lie on storage that all nodes share under one path, or be a "
            "URL"
        )
    if isinstance(spec.audio, Path):
        for _, planned in task.clips:
            path = spec.audio / planned.clip.path
            if planned.bytes >= 0 and not os.path.lexists(path):
                raise ShardwaveError(
                    f"{where} {path}: AUDIO must lie on storage that all nodes share under one path, or be "
                    "a URL"
                )
    return _builder.build(task)


def cores(ray: Any, device: str) -> int:
    """Return the number of tasks that the cluster can run at the same time."""
    resources = ray.cluster_resources()
    capacity = [resources.get("CPU", 0)] + (
        [resources.get("GPU", 0) * GPU_THREADS] if device == "cuda" else []
    )
    return max(1, int(min(capacity)))


def resolve(ray: Any, engine: str, device: str) -> tuple[str, str]:
    """Return the engine and the device of a build on a cluster. `auto` chooses GPUs if the cluster has any.

    Whether the nodes have the required libraries is not checked.

    Args:
        ray: The package, connected to the cluster.
        engine: Name of an engine, or `auto`.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        UsageError: The engine is unknown or does not run on the device, or the cluster has no GPU.
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
