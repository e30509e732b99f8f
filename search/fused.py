"""Several multi-layer perceptrons trained in lock-step as one: what `models.fit` does to each alone, to within rounding.

A single small model leaves most of a step's time to the calls around it: a dispatch, an autograd node and an optimiser's
bookkeeping cost more than the arithmetic. Here the models of one batch size share the calls that work element by element (ReLU,
dropout, loss), on one buffer in which each model has its own block; the matrix products are one call per model on its block, so
that widths may differ and nothing is padded. Backpropagation is written out. Every model keeps its own weights (those of its
Learner's network), its own order of samples, dropout masks, learning rate and weight decay, and leaves the others undisturbed
when it stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.data import TrainingData
from models.fit import _DTYPES, FitResult
from models.history import History
from preprocess.errors import ShardwaveError

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's defaults, which the Learner takes

Told = Mapping[int, tuple[int, float, dict[str, Any]]]  # {index: (epoch, value, scores)}


def fit_together(
    data: TrainingData,
    configs: Sequence[TrainConfig],
    report: Callable[[Told], set[int]],
    fail: Callable[[int, Exception], None],
) -> dict[int, FitResult]:
    """Train all `configs`, of one batch size and number of layers; returns the results of those that were not stopped.

    `report` is told of every running model after each epoch and returns the indices that end there; `fail` is told of a model
    whose loss is no number.
    """
    lanes = [Lane(index, config, data) for index, config in enumerate(configs)]
    validations = data.val_batches()
    for epoch in range(configs[0].epochs):
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
        lanes = [lane for lane in lanes if lane.index not in stopped]
        if not lanes:
            break
    return {lane.index: lane.result() for lane in lanes}


class Lane:
    """One model: its Learner, optimiser state and history."""

    def __init__(self, index: int, config: TrainConfig, data: TrainingData) -> None:
        self.index, self.config = index, config
        self.order = data.train_batches(config).order
        self.learner = (
            data.learner(config, len(self.order)).to(data.device, _DTYPES[config.precision]).eval()
        )  # as validation wants it
        self.layers = [layer for layer in self.learner.network.body.modules() if isinstance(layer, nn.Linear)]
        self.weights = [layer.weight.detach() for layer in self.layers]
        self.biases = [layer.bias.detach() for layer in self.layers]
        self.weight_gradients = [torch.empty_like(weight) for weight in self.weights]
        self.bias_gradients = [torch.empty_like(bias) for bias in self.biases]
        self.moments = [
            [torch.zeros_like(each) for each in group] for group in (self.weights, self.weights, self.biases, self.biases)
        ]
        self.history, self.best = History(data.selected), dict[str, Tensor]()
        self.rate = config.learning_rate
        self.seconds = dict.fromkeys(("total", "step", "validation", "data_wait"), 0.0)

    def begin_step(self) -> None:
        """Set the learning rate of the next step."""
        learner = self.learner
        self.rate = self.config.learning_rate * (
            learner._one_cycle(learner.steps) if self.config.schedule == "one-cycle" else 1.0
        )

    def update_weight(self, layer: int, step: Tensor) -> None:
        """AdamW on one layer's weight, by the kernel of torch.optim.AdamW(fused=True); `step`: float32 [], from 1."""
        means, squares = self.moments[:2]
        self._adamw(
            [self.weights[layer]],
            [self.weight_gradients[layer]],
            [means[layer]],
            [squares[layer]],
            step,
            self.config.weight_decay,
        )

    def update_biases(self, step: Tensor) -> None:
        """AdamW on all biases, which do not decay."""
        means, squares = self.moments[2:]
        self._adamw(self.biases, self.bias_gradients, means, squares, step, 0.0)

    def _adamw(
        self,
        values: list[Tensor],
        gradients: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        step: Tensor,
        decay: float,
    ) -> None:
        torch._fused_adamw_(
            values,
            gradients,
            means,
            squares,
            [],
            [step] * len(values),
            lr=self.rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

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


def train_epoch(lanes: Sequence[Lane], data: TrainingData, epoch: int) -> None:
    """One pass over the training data, every lane in its own order; leaves losses and predictions with the Learners."""
    source = data.train_batches(lanes[0].config).source
    permutations = [lane.order.epoch(epoch) for lane in lanes]
    stacks: dict[int, Stack] = {}
    logits, labels, clips, losses = [], [], [], []
    network = lanes[0].learner.network
    with torch.inference_mode():
        for number in range(len(lanes[0].order)):
            rows = [lane.order.batch(permutation, number) for lane, permutation in zip(lanes, permutations, strict=True)]
            size = len(rows[0])
            stack = stacks.get(size) or stacks.setdefault(size, Stack(lanes, size))
            batch = data.to_device(source.fetch(np.concatenate(rows)))
            samples = network.prepare(batch[data.field]).view(len(lanes), size, -1)
            label = batch["cls"].view(len(lanes), size)
            losses.append(stack.step(samples, label))
            logits.append(stack.logits.clone())
            labels.append(label)
            clips.append(batch["clip"].view(len(lanes), size))
    all_logits, all_labels, all_clips = (torch.cat(parts, 1) for parts in (logits, labels, clips))
    for k, (lane, loss) in enumerate(zip(lanes, torch.stack(losses, 1), strict=True)):
        lane.learner.losses.append(loss.mean())
        lane.learner.trained.add(all_logits[k], {"clip": all_clips[k], "cls": all_labels[k]})


class Stack:
    """The buffers of some lanes for batches of `size` samples: per hidden layer one, with a block [size, width] per lane."""

    def __init__(self, lanes: Sequence[Lane], size: int) -> None:
        self.lanes, self.size = lanes, size
        like = lanes[0].weights[0]
        self.hidden = len(lanes[0].layers) - 1
        widths = [lane.config.hidden_size for lane in lanes]
        total = size * sum(widths)

        def buffers() -> tuple[list[Tensor], list[list[Tensor]]]:
            flat = [like.new_empty(total) for _ in range(self.hidden)]
            blocks = [
                [
                    block.view(size, width)
                    for block, width in zip(one.split([size * width for width in widths]), widths, strict=True)
                ]
                for one in flat
            ]
            return flat, blocks

        self.active, self.active_blocks = buffers()  # after ReLU
        self.mask, self.mask_blocks = buffers()  # dropout's: 0 or 1 / (1 - p)
        self.output, self.output_blocks = buffers()  # after dropout
        self.gradient, self.gradient_blocks = buffers()
        keep = [1.0 / (1.0 - lane.config.dropout) for lane in lanes]
        self.scale = torch.cat([like.new_full((size * width,), factor) for width, factor in zip(widths, keep, strict=True)])
        self.dropped = [k for k, lane in enumerate(lanes) if lane.config.dropout]
        classes = lanes[0].layers[-1].out_features
        self.logits = like.new_empty(len(lanes), size, classes)
        smoothing = like.new_tensor([lane.config.label_smoothing for lane in lanes]).view(-1, 1, 1)
        self.smoothing = smoothing if bool(smoothing.any()) else None
        self.steps = torch.zeros((), device=like.device)

    def step(self, samples: Tensor, label: Tensor) -> Tensor:
        """Forward, backward and one AdamW step of every lane; returns the losses [lanes].

        Shape: samples [lanes, size, features], label int64 [lanes, size].
        """
        for lane in self.lanes:
            lane.begin_step()
        self._draw_masks()
        inputs: list[Sequence[Tensor]] = [list(samples)]
        for layer in range(self.hidden):
            for k, lane in enumerate(self.lanes):
                torch.addmm(lane.biases[layer], inputs[layer][k], lane.weights[layer].t(), out=self.active_blocks[layer][k])
            self.active[layer].relu_()
            torch.mul(self.active[layer], self.mask[layer], out=self.output[layer])
            inputs.append(self.output_blocks[layer])
        for k, lane in enumerate(self.lanes):
            torch.addmm(lane.biases[-1], inputs[-1][k], lane.weights[-1].t(), out=self.logits[k])
        losses, gradient = self._loss(label)
        self.steps.fill_(self.lanes[0].learner.steps + 1)
        self._backward(inputs, gradient)
        for lane in self.lanes:
            lane.update_biases(self.steps)
            lane.learner.after_step()
        return losses

    def _draw_masks(self) -> None:
        """The very masks that each model draws by itself: the generator's state follows from seed and step, layer by layer."""
        for k in self.dropped:
            lane = self.lanes[k]
            lane.learner._seed_step()
            for layer in range(self.hidden):
                self.mask_blocks[layer][k].bernoulli_(1 - lane.config.dropout)
        for k in range(len(self.lanes)):
            if k not in self.dropped:
                for layer in range(self.hidden):
                    self.mask_blocks[layer][k].fill_(1.0)
        for mask in self.mask:
            mask.mul_(self.scale)

    def _loss(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy per lane [lanes], and the gradient of each with respect to its logits [lanes, size, classes]."""
        logarithm = torch.log_softmax(self.logits, 2)
        likely = logarithm.gather(2, label.unsqueeze(2)).squeeze(2)
        gradient = logarithm.exp()
        if self.smoothing is None:
            losses = -likely.mean(1)
            gradient.scatter_add_(2, label.unsqueeze(2), gradient.new_full((), -1.0).expand(*label.shape, 1))
        else:
            keep = 1 - self.smoothing
            losses = -(keep.view(-1, 1) * likely + self.smoothing.view(-1, 1) * logarithm.mean(2)).mean(1)
            gradient -= self.smoothing / self.logits.shape[2]
            gradient.scatter_add_(2, label.unsqueeze(2), -keep.expand(-1, label.shape[1], 1))
        return losses, gradient.div_(self.size)

    def _backward(self, inputs: Sequence[Sequence[Tensor]], gradient: Tensor) -> None:
        blocks: Sequence[Tensor] = list(gradient)
        for layer in range(self.hidden, -1, -1):
            for k, lane in enumerate(self.lanes):
                if layer:
                    torch.mm(blocks[k], lane.weights[layer], out=self.gradient_blocks[layer - 1][k])
                torch.mm(blocks[k].t(), inputs[layer][k], out=lane.weight_gradients[layer])
                torch.sum(blocks[k], 0, out=lane.bias_gradients[layer])
                lane.update_weight(layer, self.steps)  # at once, while weight and gradient are in the cache
            if layer:
                below = self.gradient[layer - 1]
                below.mul_(self.mask[layer - 1])
                torch.ops.aten.threshold_backward.grad_input(below, self.active[layer - 1], 0, grad_input=below)
                blocks = self.gradient_blocks[layer - 1]
