"""Accuracy, recall and F1 of clips, by scikit-learn's definitions, for the two scores that are never mixed.

`whole`: the model sees the whole clip. `slice_mean`: the mean of the probabilities of the clip's slices. Counted here in NumPy:
scikit-learn's functions take 3 ms per epoch and view (0.03 ms here), which would double the time of a search over perceptrons.
The tests hold both equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class ClipPredictions(NamedTuple):
    """One row per clip, in ascending clip number."""

    clip: np.ndarray  # int64 [clips]
    label: np.ndarray  # int64 [clips], -1 where unknown
    probabilities: np.ndarray  # float64 [clips, classes]


class PredictionAccumulator:
    """Probabilities of the samples of an epoch: added batch by batch, without waiting for the device."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """Add a batch's logits [batch, classes]; of the batch "clip", "cls" and, where both views are mixed, "full" are read."""
        full = batch.get("full")
        self.parts.append((logits.float().softmax(1), batch["clip"], batch["cls"], batch["clip"] < 0 if full is None else full))

    def by_clip(self, full: bool | None = None, labelled: bool = True, alone: bool = False) -> ClipPredictions:
        """Mean probabilities per clip.

        Args:
            full: Of the whole clips or of the slices alone, where both are mixed.
            labelled: Leave out clips of unknown label.
            alone: Of what this process saw, instead of what all processes that train together saw.
        """
        columns = [torch.cat(column).cpu().numpy() for column in zip(*self.parts, strict=True)]
        if not alone and torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, columns)
            columns = [np.concatenate(column) for column in zip(*gathered, strict=True)]
        probabilities, clip, label, whole = columns
        keep = np.ones(len(clip), bool) if full is None else whole == full
        if labelled:
            keep &= label >= 0
        return by_clip(clip[keep], label[keep], probabilities[keep])


def by_clip(clip: np.ndarray, label: np.ndarray, probabilities: np.ndarray) -> ClipPredictions:
    """Mean probabilities over the samples of each clip.

    Shape: clip and label int64 [samples], probabilities [samples, classes].
    """
    numbers, first, where = np.unique(clip, return_index=True, return_inverse=True)
    sums = np.zeros((len(numbers), probabilities.shape[1]))
    np.add.at(sums, where, probabilities.astype(np.float64))
    return ClipPredictions(numbers, label[first], sums / np.bincount(where, minlength=len(numbers))[:, None])


def add_scores(values: dict[str, Any], name: str, predictions: ClipPredictions) -> None:
    """Add the scores of labelled clips to `values`.

    Args:
        values: Gets {name}_accuracy, and {name}_recall and {name}_f1, weighted by the classes' numbers of clips; in
            "per_class", under `name`, precision, recall, f1 and support of each class (0 where a class has no clip or is
            never predicted); in "confusion" the matrix [true class, predicted class].
        name: Split and score, as in `val_whole`.
        predictions: Of labelled clips.
    """
    classes = predictions.probabilities.shape[1]
    cells = predictions.label * classes + predictions.probabilities.argmax(1)
    matrix = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    hits, support, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    each = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
        "support": support,
    }
    values[f"{name}_accuracy"] = float(hits.sum() / support.sum())
    for score in ("recall", "f1"):
        values[f"{name}_{score}"] = float(np.average(each[score], weights=support))
    values["per_class"][name] = {key: column.tolist() for key, column in each.items()}
    values["confusion"][name] = matrix.tolist()


def loss(predictions: ClipPredictions) -> float:
    """Mean negative log likelihood of the clips' labels under their mean probabilities, in nats."""
    likely = predictions.probabilities[np.arange(len(predictions.label)), predictions.label]
    return float(-np.log(np.maximum(likely, 1e-12)).mean())
