"""Several multi-layer perceptrons trained in lock-step: what `models.fit` does to each alone, to within rounding.

A single small model leaves most of a step's time to the calls around it: a dispatch, an autograd node and an optimiser's
bookkeeping cost more than the arithmetic. On the CPU `search.compiled` takes many steps in one call, on a GPU `search.stacked`
shares the calls between the models; both are written out, without autograd. Every model keeps its own weights (those of its
Learner's network), its own order of samples, dropout masks, learning rate and weight decay, and leaves the others undisturbed
when it stops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.data import TrainingData
from models.fit import _DTYPES, FitResult
from models.history import History
from preprocess.errors import ShardwaveError
from search import compiled, stacked
from search.trial import TrialStopped

Told = Mapping[int, tuple[int, float, dict[str, Any]]]  # {index: (epoch, value, scores)}


def fit_together(
    data: TrainingData,
    configs: Sequence[TrainConfig],
    report: Callable[[Told], set[int]],
    fail: Callable[[int, Exception], None],
) -> dict[int, FitResult]:
    """Train all `configs`, of one batch size and number of layers; returns the results up to where each ended.

    `report` is told of every running model after each epoch and returns the indices that end there; `fail` is told of a model
    whose loss is no number.
    """
    train_epoch = compiled.train_epoch if data.device.type == "cpu" else stacked.train_epoch
    lanes = [Lane(index, config, data) for index, config in enumerate(configs)]
    results: dict[int, FitResult] = {}
    validations = data.val_batches()
    for epoch in range(configs[0].stop_after or configs[0].epochs):
        started = time.perf_counter()
        train_epoch(lanes, data, epoch)
        trained = time.perf_counter()
        with torch.inference_mode():
            for number, batches in enumerate(validations):
                for batch in batches:
                    moved = data.to_device(batch)
                    for lane in lanes:
                        lane.learner.validation_step(moved, number)
        told = {}
        for lane in list(lanes):
            try:
                told[lane.index] = lane.end_epoch()
            except ShardwaveError as error:
                lanes.remove(lane)
                fail(lane.index, error)
        share = len(lanes) or 1
        for lane in lanes:
            lane.seconds["step"] += (trained - started) / share
            lane.seconds["validation"] += (time.perf_counter() - trained) / share
            lane.seconds["total"] = lane.seconds["step"] + lane.seconds["validation"]
        stopped = report(told)
        results |= {lane.index: lane.result() for lane in lanes if lane.index in stopped}
        lanes = [lane for lane in lanes if lane.index not in stopped]
        if not lanes:
            break
    return results | {lane.index: lane.result() for lane in lanes}


def fit_alone(
    data: TrainingData, config: TrainConfig, report: Callable[[int, float, dict[str, Any]], None] | None = None
) -> tuple[FitResult, TrialStopped | None]:
    """One model: the result up to where it ended, and the TrialStopped by which `report` ended it."""
    stopped: TrialStopped | None = None

    def tell(told: Told) -> set[int]:
        nonlocal stopped
        try:
            if report is not None and told:
                report(*told[0])
        except TrialStopped as end:
            stopped = end
            return {0}
        return set()

    def fail(_: int, error: Exception) -> None:
        raise error

    return fit_together(data, [config], tell, fail)[0], stopped


class Lane:
    """One model: its Learner, optimiser state and history.

    `values`, `gradients`, `means`, `squares`: parameters and AdamW's state, flat, per layer weight [out, in] and bias [out]; the
    network's own parameters are views of `values`. `widths` int64 [layers + 1]: of the input and of every layer's output.
    """

    def __init__(self, index: int, config: TrainConfig, data: TrainingData) -> None:
        self.index, self.config = index, config
        self.order = data.train_batches(config).order
        self.learner = (
            data.learner(config, len(self.order)).to(data.device, _DTYPES[config.precision]).eval()
        )  # as validation wants it
        linear = [layer for layer in self.learner.network.body.modules() if isinstance(layer, nn.Linear)]
        self.widths = np.array([linear[0].in_features, *(layer.out_features for layer in linear)])
        self.values = torch.cat([part.detach().flatten() for layer in linear for part in (layer.weight, layer.bias)])
        self.layers = self.cut(self.values)
        for layer, (weight, bias) in zip(linear, self.layers, strict=True):
            layer.weight.data, layer.bias.data = weight, bias
        self.gradients, self.means, self.squares = torch.zeros(3, len(self.values)).to(self.values).unbind()
        self.history, self.best = History(data.selected), dict[str, Tensor]()
        self.seconds = dict.fromkeys(("total", "step", "validation", "data_wait"), 0.0)

    def cut(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The weight and the bias of each layer, as views of a flat tensor."""
        shapes = [part for width, out in pairwise(self.widths.tolist()) for part in ((out, width), (out,))]
        parts = flat.split([math.prod(shape) for shape in shapes])
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))

    def rate(self, step: int) -> float:
        """The learning rate of a step (from 0)."""
        factor = self.learner._one_cycle(step) if self.config.schedule == "one-cycle" else 1.0
        return self.config.learning_rate * factor

    def end_epoch(self) -> tuple[int, float, dict[str, Any]]:
        """(epoch, selected validation value, all scores) of the epoch that ended; keeps the weights of the best one."""
        if self.history.add(self.learner.epoch_scores()):
            self.best = {name: value.to("cpu", copy=True) for name, value in self.learner.evaluated.state_dict().items()}
        entry = self.history.entries[-1]
        return len(self.history.entries), entry.get(self.history.metric, float("nan")), {**entry, "seconds": self.seconds}

    def result(self) -> FitResult:
        assert self.history.best is not None
        value = self.history.value
        return FitResult(
            self.history.entries, self.history.best["epoch"], float("nan") if value is None else value, self.best, self.seconds
        )
