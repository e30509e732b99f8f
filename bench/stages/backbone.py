"""VGG16's frozen convolutions: images/s, and what caching their outputs saves a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bench.record import Record
from bench.scope import Scope
from bench.stages.training import backbone_set, config_of
from bench.timing import Case, timed

STAGE, UNIT = "backbone", "samples/s"


def run(scope: Scope) -> Iterator[Record]:
    """The frozen part alone, a head's step on cached outputs, and the whole network every step as without a cache."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bench.steps import peaks, steps
    from models import backbone
    from models.data import TrainingData

    config = config_of(scope, "vgg16")
    path = backbone_set(scope)
    data = TrainingData(path, config)
    frozen = backbone.load("none").to(data.device)
    images = data.source.view(data.roles.train, data.train_view)
    batch = min(scope.pick(2, 16), len(images))
    levels = torch.from_numpy(images.gather(range(batch))["npy"]).to(data.device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        frozen(levels)
    per_sample = counter.get_total_flops() / batch
    one = data.to_device(next(iter(data.train_batches(dataclasses.replace(config, batch_size=batch)))))

    def outputs() -> torch.Tensor:
        with torch.inference_mode():
            return frozen(levels)

    def whole() -> Iterator[dict]:
        yield {**one, data.field: outputs().clone()}

    params = {"images": batch, "shape": list(levels.shape[1:]), "device": data.device.type, "precision": config.precision}
    cases = [
        Case("frozen part, computed once", "ours", lambda: outputs() is None, batch, params),
        Case(
            "a training step of the head on cached outputs",
            "ours",
            steps(data, config, lambda: [one]),
            batch,
            {**params, "cached": True},
        ),
        Case("a training step with the frozen part in it", "peer", steps(data, config, whole), batch, params),
        *peaks(data.device.type, per_sample, scope.quick),
    ]
    plan = dataclasses.replace(scope.plan, minimum=scope.pick(2, 5), seconds=scope.pick(1, 20), limit=scope.pick(6, 90))
    for record in timed(STAGE, UNIT, cases, plan):
        if record.params.get("cached"):  # the floor is that of the convolutions, which this case does not run
            record = dataclasses.replace(record, of_floor=None)
        yield record
