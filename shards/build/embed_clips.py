"""Embedding fields of clips, computed in a worker from the original audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shardwave.common.errors import BadAudio
from shardwave.preprocess.config import DEFAULTS, Limits, SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.pooled import Embedder, Span
from shardwave.preprocess.engines.base import Segment, decode_source

GROUP = 8  # clips that are computed together; the last bits of the values depend on it
Vectors = dict[str, np.ndarray]  # by field, float32 [views, width]: the full clip, then its slices


class ClipEmbedder:
    """Computes the fields of several embeddings.

    Args:
        entries: Names and versions, see `registry.versioned`.
        device: `cpu` or `cuda`.

    Raises:
        UsageError: An embedding is not known here.
        ShardwaveError: It has another version here, or its weights are not on this machine.
    """

    def __init__(self, entries: Sequence[str], device: str) -> None:
        registry.check(entries)
        self._embedders = [Embedder(registry.split(entry)[0], device) for entry in entries]

    def __call__(
        self, sources: Sequence[Path | Segment], spans: Sequence[Sequence[Span]], limits: Limits = DEFAULTS
    ) -> list[Vectors | BadAudio]:
        """Compute the fields of clips, each decoded at the sample rate of each network.

        Args:
            sources: The files or segments.
            spans: For each, the parts that its samples show.
            limits: Limits beyond which a file is refused.

        Returns:
            The vectors of each clip; a `BadAudio` for one that cannot be used.
        """
        made: dict[int, Vectors | BadAudio] = {i: {} for i in range(len(sources))}
        for embedder in self._embedders:
            clips: dict[int, np.ndarray] = {}
            for i, source in enumerate(sources):
                try:
                    clips[i] = decode_source(source, embedder.sample_rate, limits=limits).samples
                except BadAudio as error:
                    made[i] = error
            vectors = embedder(list(clips.values()), [spans[i] for i in clips]) if clips else []
            for i, values in zip(clips, vectors, strict=True):
                earlier = made[i]
                if isinstance(earlier, BadAudio):
                    continue
                if np.isfinite(values).all():
                    earlier[registry.field(embedder.name)] = values
                else:
                    made[i] = BadAudio(f"the embedding {embedder.name} is not finite")
        return list(made.values())


def spans_of(config: SpectrogramConfig, samples: int) -> list[Span]:
    """Return the parts of a clip that its full view and its slices show.

    Args:
        config: Spectrogram configuration.
        samples: Length of the clip at `config.sample_rate`, before fitting.
    """
    second = config.sample_rate / config.hop_length
    bounds = config.slice_bounds(samples)
    slices = [Span(start / second, stop / second) for start, stop in bounds]
    return [Span(0.0, config.fitted(samples) / config.sample_rate), *slices]
