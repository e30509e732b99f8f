"""VGG16's frozen convolutions: images/s, and what caching their outputs saves a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.stages.training import backbone_set, config_of, peaks, steps
from shardwave.models.data.training_data import TrainingData
from shardwave.models.networks import backbone

STAGE, UNIT = "backbone", "samples/s"


def run(scope: Scope) -> Iterator[Record]:
    """The frozen part alone, a head's step on cached outputs, and the whole network every step as without a cache."""
    config = config_of("vgg16")
    data = TrainingData(backbone_set(scope), config)
    frozen = backbone.load("none").to(data.device)
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

    params = {"images": batch, "shape": list(levels.shape[1:]), "device": data.device.type, "precision": config.precision}
    head, cached = steps(data, config, lambda: [one]), {**params, "cached": True}
    cases = [
        Case("frozen part, computed once", "ours", lambda: outputs() is None, batch, params),
        Case("a training step of the head on cached outputs", "ours", head, batch, cached),
        Case("a training step with the frozen part in it", "peer", steps(data, config, whole), batch, params),
        *peaks(data.device.type, counter.get_total_flops() / batch, scope.quick),
    ]
    minimum, seconds, limit = scope.pick(2, 5), scope.pick(1, 20), scope.pick(6, 90)
    for record in timed(STAGE, UNIT, cases, scope.plan, minimum=minimum, seconds=seconds, limit=limit):
        # the floor is that of the convolutions, which a step on cached outputs does not run
        yield dataclasses.replace(record, of_floor=None) if record.params.get("cached") else record
