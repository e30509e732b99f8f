"""Training of a multi-layer perceptron on the CPU with compiled loops and BLAS, without autograd.

In PyTorch, the overhead of calls dominates the step of a small model; here one call performs a few dozen
steps. The result is equal to that of `shardwave.models.training.fit` up to rounding. With dropout it is equal
in distribution only, because another generator draws the masks.
"""

from __future__ import annotations

from typing import Any, cast

import numba
import numpy as np
import torch

from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.fit import FitResult, Report, run_epochs
from shardwave.models.training.precision import resolved
from shardwave.preprocess.engines.numba.numba_cache import compiled
from shardwave.search.fused.trial import FusedTrial

SAMPLES = 1024  # maximum number of samples per call, unless one step has more
_MATH = {"contract", "arcp", "reassoc", "nsz"}  # changes rounding but keeps NaN and infinity
# error_model: checks for division by zero would prevent vectorization
_part = numba.njit(fastmath=_MATH, error_model="numpy")


def fit(data: TrainingData, config: TrainConfig, *, report: Report | None = None) -> FitResult:
    """Train a perceptron, see `shardwave.models.training.fit.fit`.

    Args:
        data: The training data, on the CPU.
        config: Settings of the training, for which `shardwave.search.objective.fusable` is True.
        report: Called after every epoch; returns whether the training stops.
    """
    config = resolved(config, data.device)
    trial = FusedTrial(config, data)
    return run_epochs(data, config, trial.learner, lambda epoch: train_epoch(trial, epoch), report)


def train_epoch(trial: FusedTrial, epoch: int) -> float:
    """Train one epoch; the losses and predictions are added to the `Learner`.

    Args:
        trial: The perceptron and its optimizer.
        epoch: Number of the epoch, from 0.

    Returns:
        The seconds spent waiting for data, always 0.
    """
    config, learner, order = trial.config, trial.learner, trial.order
    permutation = order.epoch(epoch)
    steps_per_call = 1 if learner.average is not None else max(1, SAMPLES // config.batch_size)
    parameters = [buffer.numpy() for buffer in (trial.values, trial.gradients, trial.means, trial.squares)]
    settings = (float(config.weight_decay), 1.0 - config.dropout, float(config.label_smoothing))
    losses = np.empty(len(order), parameters[0].dtype)
    for start in range(0, len(order), steps_per_call):
        rows = [
            order.batch(permutation, number)
            for number in range(start, min(start + steps_per_call, len(order)))
        ]
        size, steps_before = len(rows[0]), learner.steps
        batch = trial.source.fetch(np.concatenate(rows))
        with torch.inference_mode():
            samples = learner.network.prepare(batch[trial.field]).view(len(batch["cls"]), -1).numpy()
        logits = np.empty((len(samples), trial.widths[-1]), samples.dtype)
        masks = trial.draw_masks(len(rows), size)
        rates = np.array([trial.rate(steps_before + i) for i in range(len(rows))])
        inputs = (trial.widths, samples, batch["cls"].numpy(), masks, size, rates, steps_before)
        _steps(*parameters, *inputs, *settings, logits, losses[start : start + len(rows)])
        for _ in rows:
            learner.after_step()
        learner.trained.add(torch.from_numpy(logits), batch)
    learner.losses.append(torch.from_numpy(losses).mean())
    return 0.0


@_part
def _adamw(values, gradients, means, squares, step, rate, decay):
    """Update parameters by AdamW (Loshchilov & Hutter 2019), PyTorch's defaults; `step` counts from 1."""
    kind = values.dtype.type
    beta1, beta2, epsilon = kind(0.9), kind(0.999), kind(1e-8)
    rest1, rest2 = kind(1 - 0.9), kind(1 - 0.999)
    shrink, length = kind(1 - rate * decay), kind(rate / (1 - 0.9**step))
    correction = kind(1 / np.sqrt(1 - 0.999**step))
    for i in range(len(values)):
        gradient = gradients[i]
        mean = beta1 * means[i] + rest1 * gradient
        square = beta2 * squares[i] + rest2 * gradient * gradient
        means[i], squares[i] = mean, square
        values[i] = values[i] * shrink - length * mean / (np.sqrt(square) * correction + epsilon)


@_part
def _activate(out, bias, kept, scale):
    """Apply bias, ReLU and dropout in place. Shapes: out [samples, width], kept [samples * width]."""
    kind, width = out.dtype.type, out.shape[1]
    for i in range(out.shape[0]):
        row, marks = out[i], kept[i * width : (i + 1) * width]
        for j in range(width):
            value = row[j] + bias[j]
            row[j] = kind(0) if value <= kind(0) else value * (scale * kind(marks[j]))


@_part
def _activate_backward(gradient, output, scale):
    """Differentiate dropout and ReLU in place, using their outputs. Shapes: both [samples, width]."""
    zero = gradient.dtype.type(0)
    for i in range(gradient.shape[0]):
        for j in range(gradient.shape[1]):
            gradient[i, j] = zero if output[i, j] == zero else gradient[i, j] * scale


@_part
def _sum_rows(rows, out):
    out[:] = 0
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[j] += rows[i, j]


@_part
def _cross_entropy(logits, label, smoothing, gradient):
    """Return the mean cross-entropy with label smoothing (Szegedy et al. 2016).

    Writes its derivative with respect to `logits` [samples, classes] to `gradient`, of the same shape.
    """
    samples, classes = logits.shape
    kind, total = logits.dtype.type, 0.0
    share, part = kind(smoothing / classes), kind(1 / samples)
    for i in range(samples):
        largest = logits[i].max()
        exponentials = kind(0)
        for j in range(classes):
            gradient[i, j] = np.exp(logits[i, j] - largest)
            exponentials += gradient[i, j]
        normaliser, mean = np.log(exponentials) + largest, kind(0)
        for j in range(classes):
            mean += (normaliser - logits[i, j]) / classes
            gradient[i, j] = (gradient[i, j] / exponentials - share) * part
        gradient[i, label[i]] -= kind(1 - smoothing) * part
        total += (1 - smoothing) * (normaliser - logits[i, label[i]]) + smoothing * mean
    return total / samples


@compiled
def _steps(
    values,
    gradients,
    means,
    squares,
    widths,
    samples,
    labels,
    kept,
    size,
    rates,
    earlier_steps,
    decay,
    keep,
    smoothing,
    logits,
    losses,
):
    """Perform training steps: forward pass, backward pass, AdamW.

    Args:
        values: Parameters, flat: weight [out, in] and bias [out] of each layer.
        gradients: Gradients, of the same layout.
        means: Running means of the gradients, of the same layout.
        squares: Running means of the squared gradients, of the same layout.
        widths: int64 [layers + 1], see `FusedTrial`.
        samples: [n, features].
        labels: int64 [n].
        kept: Dropout masks, uint8 [steps, elements], see `FusedTrial.draw_masks`.
        size: Samples per step; the last step may have fewer.
        rates: Learning rates [steps].
        earlier_steps: Number of earlier steps.
        decay: Weight decay.
        keep: 1 - dropout.
        smoothing: Label smoothing.
        logits: Output [n, classes], computed before the update of each step.
        losses: Output [steps].
    """
    layers, kind = len(widths) - 1, values.dtype.type
    scale = kind(1 / keep)
    outputs = np.empty((layers, size * widths.max()), values.dtype)  # input of each layer; row 0 is unused
    deltas = np.empty((2, size * widths.max()), values.dtype)
    for step in range(len(rates)):
        begin = step * size
        count = min(size, len(samples) - begin)
        x, y = samples[begin : begin + count], labels[begin : begin + count]
        offset, start = 0, 0
        for layer in range(layers):
            fan_in, fan_out = widths[layer], widths[layer + 1]
            weight = values[offset : offset + fan_in * fan_out].reshape(fan_out, fan_in)
            bias = values[offset + fan_in * fan_out : offset + (fan_in + 1) * fan_out]
            offset += (fan_in + 1) * fan_out
            below = x if layer == 0 else outputs[layer, : count * fan_in].reshape(count, fan_in)
            if layer < layers - 1:
                out = outputs[layer + 1, : count * fan_out].reshape(count, fan_out)
                np.dot(below, weight.T, out)
                _activate(out, bias, kept[step, start : start + count * fan_out], scale)
                start += count * fan_out
            else:
                out = logits[begin : begin + count]
                np.dot(below, weight.T, out)
                out += bias
        delta = deltas[layers % 2, : count * widths[layers]].reshape(count, widths[layers])
        losses[step] = _cross_entropy(logits[begin : begin + count], y, smoothing, delta)
        for layer in range(layers - 1, -1, -1):
            fan_in, fan_out = widths[layer], widths[layer + 1]
            offset -= (fan_in + 1) * fan_out
            middle, end = offset + fan_in * fan_out, offset + (fan_in + 1) * fan_out
            delta = deltas[(layer + 1) % 2, : count * fan_out].reshape(count, fan_out)
            below = x if layer == 0 else outputs[layer, : count * fan_in].reshape(count, fan_in)
            np.dot(delta.T, below, gradients[offset:middle].reshape(fan_out, fan_in))
            _sum_rows(delta, gradients[middle:end])
            if layer:
                lower = deltas[layer % 2, : count * fan_in].reshape(count, fan_in)
                np.dot(delta, values[offset:middle].reshape(fan_out, fan_in), lower)
                _activate_backward(lower, below, scale)
            for part, shrinking in ((slice(offset, middle), decay), (slice(middle, end), 0.0)):
                _adamw(
                    values[part],
                    gradients[part],
                    means[part],
                    squares[part],
                    earlier_steps + step + 1,
                    rates[step],
                    shrinking,
                )


_FLAT, _TABLE = numba.float32[::1], numba.float32[:, ::1]
cast(Any, _steps).compile(  # on import, once for all workers, which are forked afterwards
    (
        *[_FLAT] * 4,
        numba.int64[::1],
        _TABLE,
        numba.int64[::1],
        numba.uint8[:, ::1],
        numba.int64,
        numba.float64[::1],
        numba.int64,
    )
    + (*[numba.float64] * 3, _TABLE, _FLAT)
)
