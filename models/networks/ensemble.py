"""Ensemble of networks of one architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from shardwave.models.networks.base import Inputs, Network


class Ensemble(Network):
    """Networks that are trained on the same batches, each with a loss of its own (deep ensemble).

    The members differ by their initial weights and their dropout. The probabilities of the ensemble are the
    mean of those of its members (Lakshminarayanan, Pritzel, Blundell 2017).

    Args:
        inputs: Description of the input.
        members: Networks for this input.
    """

    def __init__(self, inputs: Inputs, members: Sequence[Network]) -> None:
        super().__init__(inputs)
        self.members = nn.ModuleList(members)

    def prepare(self, batch: Tensor) -> Tensor:
        """Standardise a raw batch, see `Network.prepare`."""
        return cast(Network, self.members[0]).prepare(batch)

    def logits(self, prepared: Tensor) -> Tensor:
        """Map a batch as returned by `prepare` to logits.

        Returns:
            The logits of the members, [members, batch, classes], in training mode, otherwise the logarithms
            of the mean probabilities, [batch, classes].
        """
        logits = torch.stack([cast(Network, member).logits(prepared) for member in self.members])
        return logits if self.training else mean_probabilities(logits)


def mean_probabilities(logits: Tensor) -> Tensor:
    """Return the logarithms of the mean probabilities: [members, batch, classes] -> [batch, classes]."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.log_softmax(2, dtype=dtype).logsumexp(0) - math.log(len(logits))
