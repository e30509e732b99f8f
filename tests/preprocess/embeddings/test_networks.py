"""The networks compute what the original packages compute (golden.npz, see make_golden.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwave.common.errors import ShardwaveError
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.aisfx import Aisfx
from shardwave.preprocess.embeddings.base import Embedding, load_weights
from shardwave.preprocess.embeddings.musicnn import Musicnn, from_tensorflow
from tests.preprocess.embeddings.golden_inputs import drawn, signal

GOLDEN = np.load(Path(__file__).with_name("golden.npz"))
NETWORKS = {"aisfx": Aisfx, "musicnn": Musicnn}


def spectrogram(network: Embedding) -> torch.Tensor:
    return network.spectrogram(torch.from_numpy(signal(network.sample_rate)))


def windows(network: Embedding) -> torch.Tensor:
    whole = spectrogram(network)
    starts = range(0, len(whole) - network.window + 1, network.window_hop)
    return torch.stack([whole[start : start + network.window] for start in starts])


def tensorflow_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables of musicnn."""
    filters = [(7, 38, 1, 204), (7, 67, 1, 204), *((length, 1, 1, 51) for length in (128, 64, 32))]
    filters += [(7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]
    shapes: dict[str, tuple[int, ...]] = {"dense/kernel": (1506, 200), "dense/bias": (200,)}
    for number, shape in enumerate(filters):
        name = f"conv2d_{number}" if number else "conv2d"
        shapes |= {f"{name}/kernel": shape, f"{name}/bias": shape[-1:]}
    for number, width in enumerate((1, *(shape[-1] for shape in filters), 1506, 200)):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        shapes |= {f"{name}/{part}": (width,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}
    return shapes


@pytest.mark.parametrize("name", NETWORKS)
def test_spectrogram_is_that_of_the_original(name: str) -> None:
    """A wrong window, scale, padding or filter bank."""
    expected, ours = GOLDEN[f"{name}_spectrogram"], spectrogram(NETWORKS[name]())[::10].numpy()
    count = min(len(expected), len(ours))  # Essentia appends a frame
    assert count >= 25
    assert np.abs(ours[:count] - expected[:count]).max() < 5e-5


def test_aisfx_with_drawn_weights() -> None:
    """A wrong layer, order or pooling, without the real weights."""
    network = Aisfx().eval()
    shapes = {
        key: tuple(value.shape) for key, value in network.state_dict().items() if "num_batches" not in key
    }
    load_weights(network, {key: torch.from_numpy(value) for key, value in drawn(shapes).items()}, "aisfx")
    with torch.inference_mode():
        ours = network(windows(network)).numpy()
    expected = GOLDEN["aisfx_drawn"]
    assert ours.shape == expected.shape and np.abs(ours - expected).max() < 1e-4


def test_musicnn_with_drawn_weights() -> None:
    network = Musicnn().eval()
    state = from_tensorflow(
        {key: torch.from_numpy(value) for key, value in drawn(tensorflow_shapes()).items()}
    )
    own = {key: value for key, value in network.state_dict().items() if key.startswith("mel.")}
    load_weights(network, {**own, **state}, "musicnn")
    with torch.inference_mode():
        ours = network(windows(network)).numpy()
    expected = GOLDEN["musicnn_drawn"]
    assert ours.shape == expected.shape and np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", registry.EMBEDDINGS)
def test_embedding_is_that_of_the_original(name: str, pretrained: Callable[[str], None]) -> None:
    spec = registry.find(name)
    assert spec.weights is not None
    pretrained(spec.weights)
    network = registry.make(name)
    with torch.inference_mode():
        ours = network(windows(network)).numpy()
    expected = GOLDEN[name]
    assert ours.shape == (len(expected), spec.size) and np.abs(ours - expected).max() < 1e-4


def test_weights_of_another_network_are_one_line() -> None:
    with pytest.raises(
        ShardwaveError, match="the weights aisfx are those of another network .*: run shardwave fetch aisfx"
    ):
        load_weights(Aisfx(), {"conv.weight": torch.ones(1)}, "aisfx")
