"""The interface of the embedding networks, and loading of their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from shardwave.common.errors import ShardwaveError


class Embedding(nn.Module, ABC):
    """A network that maps windows of a spectrogram to vectors.

    `spectrogram` is computed once per clip; windows are cut from it, and `forward` computes many at a time.
    """

    sample_rate: ClassVar[int]  # Hz, of the audio
    frame_hop: ClassVar[int]  # samples between two frames
    window: ClassVar[int]  # frames of a window
    window_hop: ClassVar[int]  # frames between two windows

    @abstractmethod
    def spectrogram(self, samples: Tensor) -> Tensor:
        """Compute the spectrogram of a clip.

        Frame i is centred at sample i * frame_hop. A frame of silence is zero, so that a short clip can be
        padded with zeros.

        Args:
            samples: Mono samples at `sample_rate`, float32 [time].

        Returns:
            float32 [1 + time // frame_hop, bands].
        """

    @abstractmethod
    def forward(self, windows: Tensor) -> Tensor:
        """Map windows, float32 [batch, window, bands], to vectors, float32 [batch, size]."""


def load_weights(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict without the counters of batch normalisation.

    Args:
        network: The network.
        state: Tensors by name, without the counters.
        name: Name of the weights, for the message.

    Raises:
        ShardwaveError: Names or shapes are those of another network.
    """
    counters = {
        key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")
    }
    try:
        network.load_state_dict({**counters, **state})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ShardwaveError(
            f"the weights {name} are those of another network ({reason}): run shardwave fetch {name}"
        ) from None
