"""A network from waveforms to class probabilities, with a pretrained audio network in the graph.

It computes what `shardwave.preprocess.embeddings.pooled` does, of operations that `torch.export` and ONNX
support, and accepts waveforms of any length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.waveform import mean_of_views, view_bounds
from shardwave.models.runs.checkpoint import Trained
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.base import Embedding
from shardwave.shards.read.shardset import JOIN


def takes_embeddings(trained: Trained) -> bool:
    """Return whether a network takes embeddings of audio only."""
    known = {registry.field(registry.split(entry)[0]) for entry in _entries(trained)}
    return set(trained.field.split(JOIN)) <= known


def _entries(trained: Trained) -> tuple[str, ...]:
    if trained.spectrogram is None:
        return ()
    return SpectrogramConfig(**trained.spectrogram).embedding_entries


class EmbeddingClassifier(nn.Module):
    """Map a waveform to class probabilities, from the view whose score selected the epoch.

    Maps float32 [samples] at the rate of the pretrained networks, which is not that of the spectrograms, to
    float32 [classes]. Resampling is not part of the graph: `predict` decodes a file at the rate of each
    network by soxr, which no operator of ONNX reproduces.

    Args:
        trained: The trained network.
        temperature: Temperature of the probabilities, see `calibration`.

    Raises:
        UsageError: The embeddings have different rates.
        ShardwaveError: An embedding has another version here, or its weights are not on this machine.
    """

    def __init__(self, trained: Trained, temperature: float = 1.0) -> None:
        super().__init__()
        assert trained.spectrogram is not None
        self.temperature = temperature
        self.config = SpectrogramConfig(**trained.spectrogram)
        self.is_sliced = SCORE_VIEWS[trained.selected] == "slice"
        names = [field.removesuffix(".npy") for field in trained.field.split(JOIN)]
        registry.check(entry for entry in _entries(trained) if registry.split(entry)[0] in names)
        self.embeddings = nn.ModuleList(map(registry.make, names))
        rates = {name: each.sample_rate for name, each in zip(names, self._networks(), strict=True)}
        if len(set(rates.values())) > 1:
            listed = " and ".join(f"{name} takes {rate} Hz" for name, rate in rates.items())
            raise UsageError(
                f"the inputs {','.join(names)} cannot be exported: {listed}, and a graph has one waveform of "
                "one rate: export a run on one of them"
            )
        self.sample_rate = next(iter(rates.values()))
        self.network = trained.network.float().eval()

    def _networks(self) -> list[Embedding]:
        return [each for each in self.embeddings if isinstance(each, Embedding)]

    def forward(self, waveform: Tensor) -> Tensor:
        """Map a waveform, float32 [samples], to class probabilities, float32 [classes]."""
        spans, used, longest = self._spans(waveform.shape[0])
        vectors = [_pooled(network, waveform, spans, longest) for network in self._networks()]
        probabilities: Tensor = self.network(torch.cat(vectors, 1)).float().softmax(1)
        return mean_of_views(probabilities, used, self.temperature)

    def _spans(self, count: int) -> tuple[Tensor, Tensor, int]:
        """Return the views of a waveform of `count` samples as `spans_of` does.

        Returns their start and end in seconds, float64 [2, views], 1 for views that are used and 0 for
        others, float32 [views], and an upper bound of their length in samples.
        """
        config = self.config
        samples = (2 * count * config.sample_rate + self.sample_rate) // (2 * self.sample_rate)
        fitted = samples
        if config.fit_seconds is not None:
            fitted = max(1, round(config.fit_seconds * config.sample_rate))
            if config.fit == "pad":
                fitted = torch.sym_max(samples, fitted)  # type: ignore[no-untyped-call]
        if not self.is_sliced:
            stop = torch.full((1,), fitted).double() / config.sample_rate
            spans, used, longest = torch.stack((torch.zeros_like(stop), stop)), torch.ones(1), fitted
            return spans, used, longest * self.sample_rate // config.sample_rate + 1
        frames = 1 + torch.sym_max(fitted, config.n_fft) // config.hop_length  # type: ignore[no-untyped-call]
        start, end, used, most = view_bounds(config, True, samples, frames)
        spans = torch.stack((start, end)).double() / (config.sample_rate / config.hop_length)
        return spans, used, most * config.hop_length * self.sample_rate // config.sample_rate + 1


def _pooled(network: Embedding, waveform: Tensor, spans: Tensor, longest: int) -> Tensor:
    """Compute the vectors of views, float32 [views, 3 * size], as `Embedder` does.

    Args:
        network: The pretrained network.
        waveform: float32 [samples].
        spans: Start and end of each view in seconds, float64 [2, views].
        longest: Upper bound of the samples of a view.
    """
    available = 1 + waveform.shape[0] // network.frame_hop
    missing = torch.sym_max(network.window * network.frame_hop - waveform.shape[0], 0)  # type: ignore[no-untyped-call]
    spectrogram = network.spectrogram(F.pad(waveform, (0, missing)))
    first, last = (spans * (network.sample_rate / network.frame_hop)).round().long()
    last = torch.maximum(last, first + 1).clamp_max(available)
    frames = torch.sym_min(longest // network.frame_hop + 2, available)  # type: ignore[no-untyped-call]
    windows = 1 + torch.sym_max(frames - network.window, 0) // network.window_hop  # type: ignore[no-untyped-call]
    numbers = torch.arange(windows)
    places = first[:, None, None] + (numbers * network.window_hop)[:, None] + torch.arange(network.window)
    inside = (places < last[:, None, None]).float()
    cut = spectrogram[places.clamp_max(available - 1)] * inside[..., None]
    vectors = network(cut.flatten(0, 1)).unflatten(0, (-1, windows))
    count = 1 + (last - first - network.window).clamp_min(0) // network.window_hop
    is_window = (numbers < count[:, None])[..., None]
    weights = is_window / count[:, None, None]
    mean = (vectors * weights).sum(1)
    deviation = ((vectors - mean[:, None]).square() * weights).sum(1).sqrt()
    largest = vectors.masked_fill(~is_window, -torch.inf).amax(1)
    return torch.cat((mean, largest, deviation), 1)
