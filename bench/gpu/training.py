"""Training steps of all models in float32 and bfloat16 from a resident copy."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from shardwave.bench.gpu import device
from shardwave.bench.gpu.cases import TRAINING as STAGE
from shardwave.bench.gpu.machine import PEAKS
from shardwave.bench.gpu.sets import genre_set
from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import NO_CUDA, Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.stages.training import config_of, steps
from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import TrainingData
from shardwave.shards.read.resident import Resident

UNIT = "samples/s"
MODELS = ("mlp", "cnn", "cnn-plus", "vgg16")
PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16"}


def run(scope: Scope) -> Iterator[Record]:
    """Measure the steps; the head of VGG16 trains on cached outputs.

    The limit is the operations of a step at the rate of a matrix product of the same type.

    Yields:
        Records in samples per second, and the fraction of time in which the GPU is busy.
    """
    path, where = genre_set(scope, scope.pick(32, 128)), device.name(scope.cuda)
    peaks = {}
    for name, dtype in PEAKS.items():
        product, operations = limits.matmul(where, dtype, scope.pick(256, 8_192))
        (peak,) = timed(STAGE, "FLOP/s", [Case(name, "limit", product, operations)], scope.plan, minimum=3)
        peaks[name] = peak.median
    for model, precision in itertools.product(MODELS, PRECISIONS):
        yield from _steps(scope, path, model, precision, peaks[PRECISIONS[precision]])


def _steps(scope: Scope, path: Path, model: str, precision: str, peak: float) -> Iterator[Record]:
    """Measure one model with one precision."""
    where = device.name(scope.cuda)
    config = config_of(model, device=where, precision=precision, batch_size=scope.pick(4, 128))
    data = TrainingData(path, config)
    resident = Resident(data.train, data.device, (data.field,))
    size = min(config.batch_size, len(data.train))
    count = min(len(data.train) // size, scope.pick(1, 20))
    batches = Batches(data.train, resident, data.field, size, seed=0)
    one = data.to_device(next(iter(batches)))
    learner = data.learner(dataclasses.replace(config, precision="32-true"), 1).to(data.device)
    with FlopCounterMode(display=False) as counter:
        learner.training_step(one).backward()
    operations = float(counter.get_total_flops()) * count
    work = steps(data, config, lambda: itertools.islice(batches, count))
    name = f"{model}, {precision}"
    params = {
        "batch_size": size, "steps": count, "shape": list(data.inputs.shape),
        "flops_per_step": operations / count, "peak_flops": peak, "device": data.device.type,
    }  # fmt: skip
    case = Case(name, "ours", work, count * size, params, least=operations / peak)
    yield from timed(STAGE, UNIT, [case], scope.plan, seconds=scope.pick(1, 3))
    busy = f"{name}: GPU busy"
    if not scope.cuda:
        yield Record(STAGE, busy, "ours", "fraction", skipped=NO_CUDA)
        return
    kernels, seconds = device.kernel_seconds(work)
    yield Record(STAGE, busy, "ours", "fraction", [kernels / seconds], params)
    torch.cuda.empty_cache()
