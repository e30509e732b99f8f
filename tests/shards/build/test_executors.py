from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
import torch

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.base import Engine
from shardwave.preprocess.engines.torch import TorchEngine
from shardwave.shards.build import builder, executors, worker
from shardwave.shards.build.builder import BuildOptions
from shardwave.shards.build.executors import LocalExecutor
from shardwave.shards.build.preparation import find_inputs, make_plan
from shardwave.shards.build.shard_task import ShardTasks
from shardwave.shards.build.worker import BuildSpec
from shardwave.shards.format.layout import BUILD
from tests.shards.conftest import CONFIG


def test_every_gpu_of_a_machine_gets_builders(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two made-up GPUs, whose engines compute on the CPU: one GPU would build the set alone."""
    chosen: dict[int, int] = {}  # GPU by thread
    barrier = threading.Barrier(4)
    made: list[int | None] = []  # GPU of the thread that made each engine

    def make_engine(name: str, device: str, config: SpectrogramConfig) -> Engine:
        made.append(chosen.get(threading.get_ident()))
        return TorchEngine(config, "cpu")

    def set_device(gpu: int) -> None:
        chosen[threading.get_ident()] = gpu
        barrier.wait(60)  # until all threads have started

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: ((20 << 30, 9 << 30)[gpu], 20 << 30))
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: f"GPU {chosen[threading.get_ident()]}")
    monkeypatch.setattr(worker, "make_engine", make_engine)
    assert executors.gpu_threads() == 4  # two on each, as the second has room for two
    spec = BuildSpec(audio, tmp_path / "set", CONFIG, "torch", "cuda")
    for workers, count in ((None, 4), (6, 6)):
        with contextlib.closing(builder._executor(spec, BuildOptions(workers=workers), None)) as chosen_for:
            assert isinstance(chosen_for, LocalExecutor) and chosen_for.count == count
    out = tmp_path / "set"
    (out / BUILD).mkdir(parents=True)
    options = BuildOptions(min_shards=8, val_fraction=0)
    plan = make_plan(find_inputs(audio, CONFIG, options, None), options, "torch", "cuda")
    assert len(ShardTasks(plan)) == 8
    executor = LocalExecutor(spec, 4, threads=True)
    try:
        records = executor.run(ShardTasks(plan), lambda *_: None)
    finally:
        executor.close()
    assert sorted(chosen.values()) == [0, 0, 1, 1] and set(made) == {0, 1}
    assert {record["builder"]["device_name"] for record in records} == {"GPU 0", "GPU 1"}
    assert sum(entry["samples"] for record in records for entry in record["shards"].values()) == 24 * 4
