"""Embedding vectors of views: windows inside a view, pooled by mean, maximum and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.base import Embedding

# Windows computed at a time. On the CPU, more leave the caches and cost page faults.
BATCH = {"cpu": 2, "cuda": 64}


class Span(NamedTuple):
    """Part of a clip, in seconds from its start."""

    start: float
    stop: float


class Embedder:
    """Computes the field of an embedding.

    Args:
        name: Name of the embedding.
        device: `cpu` or `cuda`.

    Raises:
        UsageError: The name is unknown.
        ShardwaveError: The weights are not on this machine.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name, self.device = name, torch.device(device)
        self.network: Embedding = registry.make(name).to(self.device)

    @property
    def sample_rate(self) -> int:
        """Rate of the clips in Hz."""
        return self.network.sample_rate

    @torch.inference_mode()
    def __call__(self, clips: Sequence[np.ndarray], spans: Sequence[Sequence[Span]]) -> list[np.ndarray]:
        """Compute the vectors of clips.

        A span has the windows that lie inside it, one every `window_hop` frames. A span shorter than a window
        has one, padded with silence.

        Args:
            clips: Mono samples at `sample_rate`, each float32 [time].
            spans: For each clip, the parts to describe.

        Returns:
            For each clip, float32 [spans, 3 * size]: mean, maximum and standard deviation over the windows of
            each span.
        """
        windows: list[Tensor] = []
        counts: list[int] = []
        for samples, parts in zip(clips, spans, strict=True):
            spectrogram = self.network.spectrogram(torch.from_numpy(samples).to(self.device))
            for part in parts:
                cut = self._windows(spectrogram, part)
                windows += cut
                counts.append(len(cut))
        batch = BATCH[self.device.type]
        # TF32 would change the third digit
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            vectors = torch.cat(
                [self.network(torch.stack(windows[i : i + batch])) for i in range(0, len(windows), batch)]
            )
        pooled = torch.stack([_statistics(each) for each in torch.split(vectors, counts)]).cpu().numpy()
        bounds = np.cumsum([len(parts) for parts in spans])[:-1]
        return np.split(pooled, bounds)

    def _windows(self, spectrogram: Tensor, span: Span) -> list[Tensor]:
        """Return the windows of a span, each [window, bands]."""
        network = self.network
        rate = network.sample_rate / network.frame_hop
        part = spectrogram[
            round(span.start * rate) : max(round(span.start * rate) + 1, round(span.stop * rate))
        ]
        if len(part) < network.window:
            part = F.pad(part, (0, 0, 0, network.window - len(part)))
        starts = range(0, len(part) - network.window + 1, network.window_hop)
        return [part[start : start + network.window] for start in starts]


def _statistics(vectors: Tensor) -> Tensor:
    """Return mean, maximum and population standard deviation of vectors [windows, size]: [3 * size]."""
    return torch.cat((vectors.mean(0), vectors.amax(0), vectors.std(0, correction=0)))
