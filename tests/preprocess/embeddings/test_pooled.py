"""Windows inside views, their pooling, and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.embeddings import pooled, registry
from shardwave.preprocess.embeddings.base import Embedding
from shardwave.preprocess.embeddings.pooled import Embedder, Span
from shardwave.preprocess.embeddings.registry import EmbeddingSpec


class Levels(Embedding):
    """A network whose two outputs are the mean and the last value of a window of ten samples."""

    sample_rate, frame_hop, window, window_hop = 100, 1, 10, 5

    def spectrogram(self, samples: Tensor) -> Tensor:
        return samples[:, None]

    def forward(self, windows: Tensor) -> Tensor:
        assert len(windows) <= pooled.BATCH["cpu"] and windows.shape[1:] == (10, 1)
        return torch.stack((windows.mean((1, 2)), windows[:, -1, 0]), 1)


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Embedder:
    monkeypatch.setitem(registry.EMBEDDINGS, "levels", EmbeddingSpec(Levels, 2, "r1"))
    return Embedder("levels")


def test_windows_lie_inside_their_view(embedder: Embedder) -> None:
    """A window that begins before its slice or ends behind it leaks other slices into the vector."""
    clip = np.arange(40, dtype=np.float32)
    [rows] = embedder([clip], [[Span(0.0, 0.4), Span(0.1, 0.29), Span(0.3, 0.4)]])
    last = np.array([9, 14, 19, 24, 29, 34, 39])
    assert np.allclose(rows[0], [*(last.mean() - [4.5, 0]), 34.5, 39, last.std(), last.std()])
    last = np.array([19, 24])  # 29 would need sample 29
    assert np.allclose(rows[1], [*(last.mean() - [4.5, 0]), 19.5, 24, 2.5, 2.5])
    assert np.allclose(rows[2], [34.5, 39, 34.5, 39, 0, 0])


def test_short_views_are_padded_with_silence(embedder: Embedder) -> None:
    clip = np.ones(12, np.float32)
    [rows] = embedder([clip], [[Span(0.08, 0.12), Span(0.5, 0.6)]])  # four samples; behind the clip's end
    assert np.allclose(rows[0], [0.4, 0, 0.4, 0, 0, 0]) and not rows[1].any()


def test_a_batch_holds_windows_of_several_clips(embedder: Embedder) -> None:
    clips = [np.random.default_rng(i).random(50 + 37 * i).astype(np.float32) for i in range(9)]
    spans = [[Span(0, len(clip) / 100), Span(0.1, 0.3)] for clip in clips]
    together = embedder(clips, spans)
    for clip, parts, rows in zip(clips, spans, together, strict=True):
        [alone] = embedder([clip], [parts])
        assert rows.dtype == np.float32 and np.allclose(rows, alone, atol=1e-6)


def test_entries_name_the_version() -> None:
    [entry] = registry.versioned(["aisfx"])
    assert entry == "aisfx 0.1.2-bfe219950715-r1" and registry.versioned([entry]) == (entry,)
    with pytest.raises(
        UsageError, match="embedding must be one of aisfx, musicnn, musicnn_mtt.*, got vggish"
    ):
        registry.versioned(["vggish"])
    with pytest.raises(UsageError, match="embeddings must differ, got aisfx twice"):
        registry.versioned(["aisfx", entry])
    with pytest.raises(
        ShardwaveError, match="embedding aisfx has version 0.1.2-.*-r1 here, 0.1.1-r1 is needed"
    ):
        registry.check(["aisfx 0.1.1-r1"])


def test_absent_weights_are_one_line(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        ShardwaveError, match="the weights musicnn are not on this machine: run shardwave fetch musicnn"
    ):
        registry.check(registry.versioned(["musicnn_mtt"]))
