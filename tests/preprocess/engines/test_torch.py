"""What is the torch engine's own: clips in parts, their memory, precision on a GPU."""

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines import torch as engine_torch
from shardwave.preprocess.engines.torch import TorchEngine, full_precision
from shardwave.preprocess.engines.torch_features import zero_crossing_rate
from tests.one_device import OneDevice
from tests.preprocess.conftest import RATE, music
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


@pytest.mark.parametrize(
    ("n_fft", "hop"), [(2_048, 512), (1_024, 333), (512, 100), (64, 64), (64, 63), (64, 48), (32, 16)]
)
def test_crossings_counted_by_hops_equal_those_of_each_frame(n_fft, hop):
    """Also of some frames alone, and of 16-bit samples."""
    config = SpectrogramConfig(n_fft=n_fft, hop_length=hop, slices=0)
    clip = np.round(np.random.default_rng(0).standard_normal(9_001)).astype(np.int16)
    padded = np.pad(clip, (n_fft // 2, n_fft // 2), mode="edge") < 0
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    expected = np.float32((frames[:, 1:] != frames[:, :-1]).sum(axis=1) / n_fft)
    samples = torch.from_numpy(clip)
    np.testing.assert_array_equal(zero_crossing_rate(samples, 2.0**-15, config), expected)
    for start, stop in ((0, 3), (5, 17), (len(expected) - 4, len(expected))):
        made = zero_crossing_rate(samples, 2.0**-15, config, start, stop)
        np.testing.assert_array_equal(made, expected[start:stop])


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all existing tensors, independently of the allocator and of other processes."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self._known:
                size = storage.nbytes()
                self._known.add(storage)
                weakref.finalize(storage, self._free, size)
                self.now += size
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, size):
        self.now -= size


@pytest.mark.parametrize("features", [True, False])
def test_memory_does_not_grow_with_the_clip(monkeypatch, features):
    """Except for its samples, four bytes each as floats, and some measures of each frame for the features."""
    monkeypatch.setattr(engine_torch, "PART", 80)
    engine = TorchEngine(SpectrogramConfig(image_size=64, slices=0, features=features), "cpu")
    engine([music(RATE)])  # fills the caches of filters
    peaks = []
    for seconds in (10, 40):
        clip = music(seconds * RATE)
        with LiveBytes() as live:
            engine([clip])
        peaks.append(live.peak)
    assert peaks[0] > 0 and peaks[1] - peaks[0] < 30 * RATE * (6 if features else 4.1)


def test_products_are_in_full_precision_and_the_setting_is_restored():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_all_tensors_are_on_the_device(monkeypatch, scale, dtype):
    """So a GPU can compute them; the weights of the matrices are moved there."""
    config = SpectrogramConfig(frequency_scale=scale, image_size=64, slices=3, features=True)
    samples = torch.zeros(10 * RATE, dtype=dtype, device="meta")
    bounds = config.slice_bounds(len(samples))
    for part in (engine_torch.PART, 80):
        monkeypatch.setattr(engine_torch, "PART", part)
        with OneDevice():
            images, numbers = TorchEngine(config, "meta").compute(samples, -15, bounds)
        assert images.is_meta and images.shape == (4, 64, 64) and numbers.is_meta and len(numbers) == 4
    monkeypatch.setattr(TorchEngine, "_moved", lambda engine, array: torch.from_numpy(np.array(array)))
    with OneDevice(), pytest.raises(RuntimeError, match="mixes the devices"):
        TorchEngine(config, "meta").compute(samples, -15, bounds)
