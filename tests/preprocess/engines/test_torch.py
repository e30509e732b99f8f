"""What is the torch engine's own: clips in parts, their memory, precision on a GPU."""

import numpy as np
import pytest
import torch

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines import torch as engine_torch
from shardwave.preprocess.engines.torch import TorchEngine, full_precision
from tests.preprocess.conftest import RATE, music
from tests.preprocess.engines.numba.test_engine import memory_mb
from tests.preprocess.engines.test_engines import assert_close


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize(
    "slices", [{"slices": 4}, {"slice_seconds": 0.7, "slice_overlap": 0.5}, {"slices": 500}]
)
def test_parts_equal_the_whole(monkeypatch, scale, slices):
    config = SpectrogramConfig(frequency_scale=scale, image_size=64, features=True, **slices)
    clips = [music(10 * RATE), np.zeros(10 * RATE, np.float32), music(3 * RATE) * np.float32(1e-25)]
    whole = TorchEngine(config, "cpu")(clips)
    monkeypatch.setattr(engine_torch, "PART", 80)
    monkeypatch.setitem(engine_torch.CHUNK, "cpu", 7 * config.n_fft)
    monkeypatch.setattr(engine_torch, "PIXELS", 3 * 64**2)
    parts = TorchEngine(config, "cpu")(clips)
    assert_close(parts.full, whole.full)
    for mine, theirs in zip(parts.slices, whole.slices, strict=True):
        assert_close(mine, theirs)
    for mine, theirs in zip(parts.features, whole.features, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-3)


def test_clips_of_different_lengths_do_not_change_each_other():
    config = SpectrogramConfig(image_size=64, slices=3, features=True)
    clips = [music(RATE * seconds // 2, seconds) for seconds in (5, 1, 3, 5)]
    engine = TorchEngine(config, "cpu")
    made = engine(clips)
    for i, clip in enumerate(clips):
        alone = engine([clip])
        np.testing.assert_array_equal(made.full[i], alone.full[0])
        np.testing.assert_array_equal(made.slices[i], alone.slices[0])
        np.testing.assert_array_equal(made.features[i], alone.features[0])


@pytest.mark.slow
@pytest.mark.parametrize("features", [True, False])
def test_memory_does_not_grow_with_the_clip(tmp_path, features):
    """Except for its samples: two bytes each from the file, four as floats, four mirrored, and a few of features and images."""
    growth = memory_mb("torch", tmp_path, 40, RATE, features) - memory_mb(
        "torch", tmp_path, 10, RATE, features
    )
    assert growth < 30 * 60 * RATE * 14 / 1e6


def test_products_are_in_full_precision_and_the_setting_is_restored():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
