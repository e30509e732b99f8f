"""Steps of several multi-layer perceptrons stacked as one, in PyTorch: for a GPU, where a call costs more than its arithmetic.

The models share the calls that work element by element (ReLU, dropout, loss), on one buffer in which each model has its own
block; the matrix products are one call per model on its block, so that widths may differ and nothing is padded. Backpropagation
is written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from models.data import TrainingData
    from search.fused import Lane

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's defaults, which the Learner takes


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
        like = lanes[0].values
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
        classes = int(lanes[0].widths[-1])
        self.logits = like.new_empty(len(lanes), size, classes)
        smoothing = like.new_tensor([lane.config.label_smoothing for lane in lanes]).view(-1, 1, 1)
        self.smoothing = smoothing if bool(smoothing.any()) else None
        self.steps = torch.zeros((), device=like.device)
        self.gradients = [lane.cut(lane.gradients) for lane in lanes]
        self.state = [  # per lane, of all weights and of all biases: values, gradients, means, squares
            [
                [[layer[part] for layer in lane.cut(flat)] for flat in (lane.values, lane.gradients, lane.means, lane.squares)]
                for part in (0, 1)
            ]
            for lane in lanes
        ]

    def step(self, samples: Tensor, label: Tensor) -> Tensor:
        """Forward, backward and one AdamW step of every lane; returns the losses [lanes].

        Shape: samples [lanes, size, features], label int64 [lanes, size].
        """
        self._draw_masks()
        inputs: list[Sequence[Tensor]] = [list(samples)]
        for layer in range(self.hidden):
            for k, lane in enumerate(self.lanes):
                weight, bias = lane.layers[layer]
                torch.addmm(bias, inputs[layer][k], weight.t(), out=self.active_blocks[layer][k])
            self.active[layer].relu_()
            torch.mul(self.active[layer], self.mask[layer], out=self.output[layer])
            inputs.append(self.output_blocks[layer])
        for k, lane in enumerate(self.lanes):
            weight, bias = lane.layers[-1]
            torch.addmm(bias, inputs[-1][k], weight.t(), out=self.logits[k])
        losses, gradient = self._loss(label)
        self.steps.fill_(self.lanes[0].learner.steps + 1)
        self._backward(inputs, gradient)
        for k, lane in enumerate(self.lanes):
            self._update(k)
            lane.learner.after_step()
        return losses

    def _update(self, k: int) -> None:
        """AdamW on a lane's weights, and on its biases, which do not decay, by the kernel of torch.optim.AdamW(fused=True)."""
        lane = self.lanes[k]
        rate = lane.rate(lane.learner.steps)
        for tensors, decay in zip(self.state[k], (lane.config.weight_decay, 0.0), strict=True):
            torch._fused_adamw_(
                *(*tensors, [], [self.steps] * len(lane.layers)),
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

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
                    torch.mm(blocks[k], lane.layers[layer][0], out=self.gradient_blocks[layer - 1][k])
                weight, bias = self.gradients[k][layer]
                torch.mm(blocks[k].t(), inputs[layer][k], out=weight)
                torch.sum(blocks[k], 0, out=bias)
            if layer:
                below = self.gradient[layer - 1]
                below.mul_(self.mask[layer - 1])
                torch.ops.aten.threshold_backward.grad_input(below, self.active[layer - 1], 0, grad_input=below)
                blocks = self.gradient_blocks[layer - 1]
