"""Clips for tests of engines, and a fixture of all engines: one line here runs every test on a new engine."""

import importlib.util

import numpy as np
import pytest
import torch

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import make_engine

RATE = 22_050

ENGINES = [
    pytest.param(("numba", "cpu"), id="numba"),
    pytest.param(("torch", "cpu"), id="torch"),
    pytest.param(("dali", "cpu"), id="dali"),
    pytest.param(("torch", "cuda"), id="torch-cuda", marks=pytest.mark.gpu),
    pytest.param(("dali", "cuda"), id="dali-cuda", marks=pytest.mark.gpu),
]


def music(samples: int, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Decaying chords of harmonics over a noise floor, in steps of 16 bits; float32 [samples]."""
    rng = np.random.default_rng(seed)
    note = np.arange(int(0.4 * rate)) / rate
    clip = rng.standard_normal(samples) * 10 ** rng.uniform(-4.5, -3)
    for onset in range(0, samples, len(note)):
        pitch = 110 * 2 ** (rng.integers(0, 36) / 12)
        harmonics = np.arange(1, 1 + min(11, int(rate / 2 / pitch)))[:, None]
        waves = np.sin(2 * np.pi * harmonics * pitch * note + rng.uniform(0, 6, harmonics.shape)) / harmonics
        part = clip[onset : onset + len(note)]
        part += (0.2 * waves.sum(axis=0) * np.exp(-3 * note))[: len(part)]
    return (np.round(np.clip(clip, -1, 1) * 32_767) / 32_768).astype(np.float32)


@pytest.fixture(scope="session")
def expected():
    """`expected(config, clips)`: what the reference makes of clips, each computed once for all engines."""
    known = {}

    def compute(config, clips):
        for clip in clips:
            key = (config, clip.tobytes())
            if key not in known:
                known[key] = make_engine("reference", "cpu", config)([clip])
            yield known[key]

    return lambda config, clips: list(compute(config, clips))


@pytest.fixture(scope="session", params=ENGINES)
def engine_name(request):
    if request.param[1] == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.param[0] == "dali" and importlib.util.find_spec("nvidia") is None:
        pytest.skip("NVIDIA DALI is not installed")
    return request.param


@pytest.fixture(scope="session")
def engine_of(engine_name):
    """`engine_of(config)`: the engine under test for a configuration, built once."""
    made = {}

    def build(config=SpectrogramConfig()):  # noqa: B008  (frozen)
        if config not in made:
            made[config] = make_engine(*engine_name, config)
        return made[config]

    return build
