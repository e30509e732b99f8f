"""The exported computation with an audio network in the graph, against the embedder and the network."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.embedding_waveform import EmbeddingClassifier, takes_embeddings
from shardwave.models.networks.base import Inputs
from shardwave.models.networks.build import build_model
from shardwave.models.runs.checkpoint import Trained
from shardwave.models.training.config import defaults
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.base import Embedding
from shardwave.preprocess.embeddings.pooled import Embedder
from shardwave.preprocess.embeddings.registry import EmbeddingSpec
from shardwave.shards.build.embed_clips import spans_of


class Sums(Embedding):
    """A network whose two outputs depend on the content of a window and on its order."""

    sample_rate, frame_hop, window, window_hop = 8_000, 100, 10, 5

    def spectrogram(self, samples: Tensor) -> Tensor:
        frames = torch.nn.functional.pad(samples, (0, self.frame_hop))
        count = 1 + samples.shape[0] // self.frame_hop
        return frames[: count * self.frame_hop].reshape(-1, self.frame_hop).square().sum(1, keepdim=True)

    def forward(self, windows: Tensor) -> Tensor:
        ramp = torch.arange(10.0)[:, None]
        return torch.stack(((windows * ramp).sum((1, 2)), windows.amax((1, 2))), 1)


class Fast(Sums):
    sample_rate = 16_000


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in (("sums", Sums), ("more", Sums), ("fast", Fast)):
        monkeypatch.setitem(registry.EMBEDDINGS, name, EmbeddingSpec(network, 2, "r1"))


def trained(selected: str, names: str = "sums,more", **changes: Any) -> Trained:
    config = defaults("mlp", inputs=names, device="cpu")
    fields = "+".join(f"{name}.npy" for name in names.split(","))
    width = 6 * len(names.split(","))
    torch.manual_seed(0)
    network = build_model(config, Inputs(fields, (width,), 3, torch.zeros(width), 0.5 * torch.ones(width)))
    embeddings = ",".join(registry.versioned(names.split(",")))
    spectrogram = dataclasses.asdict(
        SpectrogramConfig(**{"embeddings": embeddings, "sample_rate": 11_025, "slices": 0, **changes})
    )
    return Trained(
        network.eval(), fields, config, list("abc"), "set", "print", None, spectrogram, {}, selected, 1
    )


@pytest.mark.parametrize(
    ("selected", "changes"),
    [
        ("full", {}),
        ("full", {"sample_rate": 8_000, "fit": "pad", "fit_seconds": 1.5}),
        ("full", {"fit": "crop", "fit_seconds": 0.4}),
        ("slice_mean", {"slices": 3}),
        ("slice_mean", {"slices": 4, "sample_rate": 16_000, "hop_length": 300}),  # boundaries at half frames
        ("slice_mean", {"slice_seconds": 0.3, "slice_overlap": 0.5}),
        ("slice_mean", {"slice_seconds": 0.3, "fit": "pad", "fit_seconds": 1.0}),
        ("slice_mean", {"slices": 5, "fit": "crop", "fit_seconds": 2.0}),
    ],
)
def test_probabilities_are_those_of_the_embedder(selected: str, changes: dict) -> None:
    """For clips that are shorter than a frame, than a window, and longer."""
    run, rng = trained(selected, **changes), np.random.default_rng(0)
    config = SpectrogramConfig(**run.spectrogram)  # type: ignore[arg-type]
    exported, embedder = EmbeddingClassifier(run), Embedder("sums")
    found = []
    for seconds in (0.01, 0.06, 0.11, 0.3, 0.97, 2.003, 5.0):
        clip = rng.normal(0, 0.1, round(seconds * 8_000)).astype(np.float32)
        clip *= np.linspace(0.1, 1, len(clip), dtype=np.float32)
        spans = spans_of(config, round(seconds * config.sample_rate))
        [rows] = embedder([clip], [spans[1:] if SCORE_VIEWS[selected] == "slice" else spans[:1]])
        with torch.inference_mode():
            inputs = torch.from_numpy(np.concatenate([rows, rows], 1))
            expected = run.network(inputs).softmax(1).mean(0)
            found.append(exported(torch.from_numpy(clip)))
        np.testing.assert_allclose(found[-1], expected, atol=1e-5)
    assert np.ptp(np.stack(found), axis=0).max() > 0.02  # else equal probabilities would say nothing


def test_only_embeddings_of_one_rate_are_accepted() -> None:
    with pytest.raises(UsageError, match="sums takes 8000 Hz and fast takes 16000 Hz, and a graph has one"):
        EmbeddingClassifier(trained("full", "sums,fast"))
    run = trained("full")
    assert takes_embeddings(run)
    assert not takes_embeddings(dataclasses.replace(run, field="features.npy+sums.npy"))
    assert not takes_embeddings(dataclasses.replace(run, field="npy"))
    assert not takes_embeddings(dataclasses.replace(run, spectrogram=None))
