"""Predictions gathered over an epoch, on their device until the epoch ends, then brought together by clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardwave.models.evaluation import metrics


class Seen:
    """Probabilities of the samples that passed: added batch by batch, without waiting for the device."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """Add a batch's logits [batch, classes]; of the batch "clip", "cls" and, where both views are mixed, "full" are read."""
        full = batch.get("full")
        self.parts.append((logits.float().softmax(1), batch["clip"], batch["cls"], batch["clip"] < 0 if full is None else full))

    def by_clip(self, full: bool | None = None, labelled: bool = True, alone: bool = False) -> metrics.ClipPredictions:
        """Mean probabilities per clip.

        Args:
            full: Of the whole clips or of the slices alone, where both are mixed.
            labelled: Leave out clips of unknown label.
            alone: Of what this process saw, instead of what all processes that train together saw.
        """
        columns = [torch.cat(column).cpu().numpy() for column in zip(*self.parts, strict=True)]
        probabilities, clip, label, whole = columns if alone else _all_ranks(*columns)
        keep = np.ones(len(clip), bool) if full is None else whole == full
        if labelled:
            keep &= label >= 0
        return metrics.by_clip(clip[keep], label[keep], probabilities[keep])


def _all_ranks(*arrays: np.ndarray) -> list[np.ndarray]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(arrays)
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, arrays)
    return [np.concatenate(column) for column in zip(*gathered, strict=True)]
