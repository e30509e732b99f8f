"""VGG16's frozen convolutions: images per second, and training steps with and without cached outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.stages.training import backbone_set, config_of, least_seconds, limit_cases, peaks, steps
from shardwave.models.data.training_data import TrainingData
from shardwave.models.networks import backbone

STAGE, UNIT = "backbone", "samples/s"


def run(scope: Scope) -> Iterator[Record]:
    """Measure the frozen part, a step of the head on its cached outputs, and a step of the whole network.

    The limit is the operations of the convolutions, which a step on cached outputs does not run.

    Yields:
        Records in images per second.
    """
    config = config_of("vgg16")
    data = TrainingData(backbone_set(scope), config)
    frozen = backbone.load("vgg16", "none").to(data.device)
    images = data.source.view(data.roles.train, data.train_view)
    batch = min(scope.pick(2, 16), len(images))
    levels = torch.from_numpy(images.gather(range(batch))["npy"]).to(data.device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        frozen(levels)
    one = data.to_device(next(iter(data.train_batches(dataclasses.replace(config, batch_size=batch)))))

    def outputs() -> torch.Tensor:
        with torch.inference_mode():
            return frozen(levels)

    def whole() -> Iterator[dict]:
        yield {**one, data.field: outputs().clone()}

    flops = counter.get_total_flops()
    least = least_seconds(scope, data.device.type, config, flops)
    params = {
        "images": batch,
        "shape": list(levels.shape[1:]),
        "device": data.device.type,
        "precision": config.precision,
    }
    head, cached = steps(data, config, lambda: [one]), {**params, "cached": True}
    cases = [
        Case("frozen part, computed once", "ours", lambda: outputs() is None, batch, params, least=least),
        Case("a training step of the head on cached outputs", "ours", head, batch, cached),
        Case(
            "a training step with the frozen part in it",
            "peer",
            steps(data, config, whole),
            batch,
            params,
            least=least,
        ),
        *peaks(data.device.type, flops / batch, scope.quick),
        *limit_cases(scope, data.device.type, config, "", batch, params, flops),
    ]
    minimum, seconds, limit = scope.pick(2, 5), scope.pick(1, 20), scope.pick(6, 90)
    yield from timed(STAGE, UNIT, cases, scope.plan, minimum=minimum, seconds=seconds, limit=limit)
