"""Training of a multi-layer perceptron on the CPU, by compiled loops around BLAS and without autograd.

A small model's step in PyTorch is mostly the calls around its arithmetic; here a few dozen steps are one call. The result is that
of `shardwave.models.training.fit` to within rounding; with dropout it is equal in distribution, for the masks are drawn by another generator.
"""

from __future__ import annotations

from typing import Any, cast

import numba
import numpy as np
import torch

from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.fit import FitResult, Report, run_epochs
from shardwave.preprocess.engines.numba.numba_cache import compiled
from shardwave.search.fused.trial import FusedTrial

SAMPLES = 1024  # of the steps that are taken in one call
_MATH = {"contract", "arcp", "reassoc", "nsz"}  # rounding may differ; NaN and infinity stay what they are
_part = numba.njit(fastmath=_MATH, error_model="numpy")  # a test for division by zero would keep loops from vector instructions


def fit(data: TrainingData, config: TrainConfig, *, report: Report | None = None) -> FitResult:
    """Train a perceptron as `shardwave.models.training.fit.fit` does; `data` must be on the CPU."""
    trial = FusedTrial(config, data)
    return run_epochs(data, config, trial.learner, lambda epoch: train_epoch(trial, epoch), report)


def train_epoch(trial: FusedTrial, epoch: int) -> float:
    """Take the training steps of an epoch (from 0); losses and predictions are left with the Learner.

    Returns:
        0: it does not wait for data.
    """
    config, learner, order = trial.config, trial.learner, trial.order
    permutation = order.epoch(epoch)
    at_once = 1 if learner.average is not None else max(1, SAMPLES // config.batch_size)
    parameters = [buffer.numpy() for buffer in (trial.values, trial.gradients, trial.means, trial.squares)]
    settings = (float(config.weight_decay), 1.0 - config.dropout, float(config.label_smoothing))
    losses = np.empty(len(order), parameters[0].dtype)
    for start in range(0, len(order), at_once):
        rows = [order.batch(permutation, number) for number in range(start, min(start + at_once, len(order)))]
        size, taken = len(rows[0]), learner.steps
        batch = trial.source.fetch(np.concatenate(rows))
        with torch.inference_mode():
            samples = learner.network.prepare(batch[trial.field]).view(len(batch["cls"]), -1).numpy()
        logits = np.empty((len(samples), trial.widths[-1]), samples.dtype)
        masks = trial.draw_masks(len(rows), size)
        rates = np.array([trial.rate(taken + i) for i in range(len(rows))])
        known = (trial.widths, samples, batch["cls"].numpy(), masks, size, rates, taken)
        _steps(*parameters, *known, *settings, logits, losses[start : start + len(rows)])
        for _ in rows:
            learner.after_step()
        learner.trained.add(torch.from_numpy(logits), batch)
    learner.losses.append(torch.from_numpy(losses).mean())
    return 0.0


@_part
def _adamw(values, gradients, means, squares, step, rate, decay):
    """AdamW (Loshchilov & Hutter 2019) on flat parameters, with torch.optim.AdamW's defaults; `step` counts from 1."""
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
    """Bias, ReLU and dropout, in place. Shape: out [samples, width], kept [samples * width]."""
    kind, width = out.dtype.type, out.shape[1]
    for i in range(out.shape[0]):
        row, marks = out[i], kept[i * width : (i + 1) * width]
        for j in range(width):
            value = row[j] + bias[j]
            row[j] = kind(0) if value <= kind(0) else value * (scale * kind(marks[j]))


@_part
def _withdraw(gradient, output, scale):
    """Back through dropout and ReLU, in place: what was dropped or not positive has output 0. Shape: both [samples, width]."""
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
    """Mean cross-entropy with label smoothing (Szegedy et al. 2016); into `gradient` [samples, classes] goes its derivative."""
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
    values, gradients, means, squares, widths, samples, labels, kept, size, rates, taken, decay, keep, smoothing, logits, losses
):
    """Forward, backward and AdamW of len(rates) steps.

    `values` to `squares`: flat, per layer weight [out, in] and bias [out]; `widths` int64 [layers + 1]; samples [n, features],
    labels int64 [n], `size` of them in each step but the last; kept [steps, elements] (see `FusedTrial.draw_masks`);
    `taken`: steps before these. Writes logits [n, classes] (before each step) and losses [steps].
    """
    layers, kind = len(widths) - 1, values.dtype.type
    scale = kind(1 / keep)
    outputs = np.empty((layers, size * widths.max()), values.dtype)  # of each layer's input: row 0 is not used
    slopes = np.empty((2, size * widths.max()), values.dtype)
    for step in range(len(rates)):
        begin = step * size
        count = min(size, len(samples) - begin)
        x, y = samples[begin : begin + count], labels[begin : begin + count]
        at, drawn = 0, 0
        for layer in range(layers):
            fan_in, fan_out = widths[layer], widths[layer + 1]
            weight = values[at : at + fan_in * fan_out].reshape(fan_out, fan_in)
            bias = values[at + fan_in * fan_out : at + (fan_in + 1) * fan_out]
            at += (fan_in + 1) * fan_out
            below = x if layer == 0 else outputs[layer, : count * fan_in].reshape(count, fan_in)
            if layer < layers - 1:
                out = outputs[layer + 1, : count * fan_out].reshape(count, fan_out)
                np.dot(below, weight.T, out)
                _activate(out, bias, kept[step, drawn : drawn + count * fan_out], scale)
                drawn += count * fan_out
            else:
                out = logits[begin : begin + count]
                np.dot(below, weight.T, out)
                out += bias
        slope = slopes[layers % 2, : count * widths[layers]].reshape(count, widths[layers])
        losses[step] = _cross_entropy(logits[begin : begin + count], y, smoothing, slope)
        for layer in range(layers - 1, -1, -1):
            fan_in, fan_out = widths[layer], widths[layer + 1]
            at -= (fan_in + 1) * fan_out
            middle, end = at + fan_in * fan_out, at + (fan_in + 1) * fan_out
            slope = slopes[(layer + 1) % 2, : count * fan_out].reshape(count, fan_out)
            below = x if layer == 0 else outputs[layer, : count * fan_in].reshape(count, fan_in)
            np.dot(slope.T, below, gradients[at:middle].reshape(fan_out, fan_in))
            _sum_rows(slope, gradients[middle:end])
            if layer:
                lower = slopes[layer % 2, : count * fan_in].reshape(count, fan_in)
                np.dot(slope, values[at:middle].reshape(fan_out, fan_in), lower)
                _withdraw(lower, below, scale)
            for part, shrinking in ((slice(at, middle), decay), (slice(middle, end), 0.0)):
                _adamw(values[part], gradients[part], means[part], squares[part], taken + step + 1, rates[step], shrinking)


_FLAT, _TABLE = numba.float32[::1], numba.float32[:, ::1]
cast(Any, _steps).compile(  # now, or loaded: once for all workers, which are forked after the import
    (*[_FLAT] * 4, numba.int64[::1], _TABLE, numba.int64[::1], numba.uint8[:, ::1], numba.int64, numba.float64[::1], numba.int64)
    + (*[numba.float64] * 3, _TABLE, _FLAT)
)
