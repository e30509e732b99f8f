"""Power spectra by matrix products, against NumPy's FFT."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shardwave.models.evaluation.fourier import PowerSpectrum


@pytest.mark.parametrize("size", [64, 128, 512, 2_048, 4_096])
def test_powers_are_those_of_numpy(size: int) -> None:
    """Relative to the largest power of a frame, which images show down to -80 dB, 1e-8."""
    frames = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
    frames[1] = np.sin(0.3 * np.arange(size)) * np.hanning(size)
    expected = np.abs(np.fft.rfft(frames.astype(np.float64))) ** 2
    found = PowerSpectrum(size)(torch.from_numpy(frames)).double().numpy()
    assert found.shape == expected.shape == (3, size // 2 + 1)
    np.testing.assert_array_less(np.abs(found - expected).max(axis=1), 1e-6 * expected.max(axis=1))
    quiet = np.abs(np.sqrt(found) - np.sqrt(expected)).max(axis=1)
    np.testing.assert_array_less(quiet, 1e-5 * np.sqrt(expected.max(axis=1)))
