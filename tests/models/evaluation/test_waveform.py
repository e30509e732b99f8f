"""The exported computation, from waveforms to probabilities, against the engine and the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.audio_classifier import AudioClassifier
from shardwave.models.evaluation.waveform import WaveformClassifier
from shardwave.models.networks.base import Inputs
from shardwave.models.networks.build import build_model
from shardwave.models.runs.checkpoint import Trained
from shardwave.models.training.config import defaults
from shardwave.preprocess.config import SpectrogramConfig

SIZE = 24


def trained(selected: str, model: str = "cnn", **changes: Any) -> Trained:
    """A network with initial weights, whose probabilities depend on all of the image."""
    import dataclasses

    config = defaults(model, device="cpu", conv1_kernel=3, conv2_kernel=3)
    shape, field = ((SIZE, SIZE), "npy") if model != "mlp" else ((200,), "features.npy")
    mean = torch.zeros(1 if model != "mlp" else 200)
    network = build_model(config, Inputs(field, shape, 3, mean, 10 * torch.ones_like(mean)))
    spectrogram = dataclasses.asdict(SpectrogramConfig(**{"image_size": SIZE, "slices": 0, **changes}))
    classes = ["a", "b", "c"]
    return Trained(
        network.eval(), field, config, classes, "set", "print", spectrogram, spectrogram, {}, selected, 1
    )


@pytest.mark.parametrize(
    ("selected", "changes"),
    [
        ("full", {}),
        ("full", {"frequency_scale": "mel", "n_fft": 512, "hop_length": 100, "sample_rate": 8_000}),
        ("full", {"frequency_scale": "log", "fit": "pad", "fit_seconds": 0.5}),
        ("full", {"fit": "crop", "fit_seconds": 0.3}),
        ("slice_mean", {"slices": 3}),
        ("slice_mean", {"slice_seconds": 0.2, "frequency_scale": "mel"}),
        ("slice_mean", {"slice_seconds": 0.2, "slice_overlap": 0.5, "fit": "pad", "fit_seconds": 1.0}),
        ("slice_mean", {"slices": 5, "fit": "crop", "fit_seconds": 0.4}),
    ],
)
def test_probabilities_are_those_of_the_predictor(selected: str, changes: dict) -> None:
    """For clips that are shorter than a frame, enlarged, reduced, silent, quiet and loud."""
    run, rng = trained(selected, **changes), np.random.default_rng(0)
    exported, classifier = WaveformClassifier(run), AudioClassifier(run, "cpu")
    clips = [rng.normal(0, 0.1, count).astype(np.float32) for count in (700, 2_047, 5_000, 11_025, 40_001)]
    clips[3][4_000:] *= np.sin(np.arange(7_025, dtype=np.float32) / 3)
    clips += [np.zeros(9_000, np.float32), clips[3] * np.float32(1e-12), clips[3] * np.float32(1e17)]
    expected = classifier(clips)
    with torch.inference_mode():
        found = np.stack([exported(torch.from_numpy(clip)).numpy() for clip in clips])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.ptp(expected, axis=0).max() > 0.02  # else equal probabilities would say nothing


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_probabilities_of_a_calibrated_run_are_those_of_the_predictor(temperature: float) -> None:
    run, clip = trained("slice_mean", slices=3), np.random.default_rng(0).normal(0, 0.1, 20_000)
    samples = clip.astype(np.float32)
    (expected,) = AudioClassifier(run, "cpu", temperature)([samples])
    assert np.abs(expected - AudioClassifier(run, "cpu")([samples])[0]).max() > 0.01
    with torch.inference_mode():
        found = WaveformClassifier(run, temperature)(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_network_of_features_is_refused() -> None:
    with pytest.raises(UsageError, match="mlp takes features, which an exported graph cannot reproduce"):
        WaveformClassifier(trained("full", "mlp", features=True))
