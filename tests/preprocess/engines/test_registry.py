"""Naming engines and devices: `auto`, wrong names, what is not there."""

import numpy as np
import pytest
import torch

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.base import conditioned
from shardwave.preprocess.engines.registry import make_engine, resolve

CUDA = torch.cuda.is_available()


def test_auto():
    assert resolve("auto", "cpu") == ("numba", "cpu")
    assert resolve("auto", "auto") == (("torch", "cuda") if CUDA else ("numba", "cpu"))
    assert resolve("reference", "auto") == ("reference", "cpu")


@pytest.mark.parametrize(
    ("engine", "device", "message"),
    [
        ("numpy", "cpu", "engine must be one of auto, numba, torch, dali, reference, got numpy"),
        ("torch", "gpu", "device must be one of auto, cpu, cuda, got gpu"),
        ("reference", "cuda", "engine reference runs on the CPU only"),
        ("numba", "cuda", "engine numba runs on the CPU only"),
    ],
)
def test_wrong_names(engine, device, message):
    with pytest.raises(UsageError, match=message):
        resolve(engine, device)


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
@pytest.mark.parametrize("engine", ["auto", "torch", "dali"])
def test_a_missing_device_is_an_error_not_a_fallback(engine):
    with pytest.raises(UsageError, match="no CUDA device"):
        resolve(engine, "cuda")
    with pytest.raises(UsageError, match="no CUDA device"):
        make_engine("torch" if engine == "auto" else engine, "cuda", SpectrogramConfig())


def test_a_missing_dali_tells_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nvidia.dali", None)
    with pytest.raises(UsageError, match=r"pip install 'shardwave\[dali\]'"):
        resolve("dali", "cpu")
    with pytest.raises(UsageError, match=r"pip install 'shardwave\[dali\]'"):
        make_engine("dali", "cpu", SpectrogramConfig())


def test_conditioned():
    clip = np.array([0.5, -0.25], np.float32)
    samples, exponent = conditioned(clip, 8)
    assert exponent == 0 and samples.tolist() == [0.5, -0.25, 0, 0, 0, 0, 0, 0]
    for factor in (2.0**-60, 2.0**60):
        scaled, exponent = conditioned(clip * np.float32(factor), 2)
        assert 0.25 < np.abs(scaled).max() <= 1
        np.testing.assert_array_equal(np.ldexp(scaled, exponent), clip * np.float32(factor))
    same = np.ones(10, np.float32)
    assert conditioned(same, 4)[0] is same
