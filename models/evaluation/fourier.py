"""Power spectra by matrix products, for graphs that are run where FFTs are slow or missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class PowerSpectrum(nn.Module):
    """Compute |FFT|² of real frames: [frames, size] -> [frames, size / 2 + 1].

    The transform is split into two of lengths `rows` and `columns` with size = rows * columns (Cooley & Tukey
    1965): sample a * columns + b and bin c + rows * d have the factors exp(-2πi ac / rows),
    exp(-2πi bc / size) and exp(-2πi bd / columns). A product with the whole Fourier matrix would need twelve
    times as many operations for 2,048 samples.

    Args:
        size: Samples of a frame, a power of two.
    """

    first: Tensor
    twiddle: Tensor
    second: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bins = size // 2 + 1
        self.rows = 1 << (size.bit_length() - 1) // 2
        self.columns = size // self.rows
        c, b, d = np.arange(self.rows), np.arange(self.columns), np.arange(self.columns // 2 + 1)
        self.register_buffer("first", _factors(np.outer(c, c), self.rows))
        self.register_buffer("twiddle", _factors(np.outer(c, b), size))
        self.register_buffer("second", _factors(np.outer(b, d), self.columns))

    def forward(self, frames: Tensor) -> Tensor:
        """Map real frames [frames, size] to powers [frames, size / 2 + 1]."""
        values = frames.reshape(-1, self.rows, self.columns)
        real, imaginary = self.first[0] @ values, self.first[1] @ values
        cosine, sine = self.twiddle
        real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
        cosine, sine = self.second
        power: Tensor = (real @ cosine - imaginary @ sine).square() + (
            real @ sine + imaginary @ cosine
        ).square()
        return power.mT.reshape(-1, self.rows * (self.columns // 2 + 1))[:, : self.bins]


def _factors(exponents: np.ndarray, size: int) -> Tensor:
    """Return real and imaginary parts of exp(-2πi exponents / size), float32 [2, ...]."""
    phase = -2 * np.pi / size * (exponents % size)
    return torch.tensor(np.stack((np.cos(phase), np.sin(phase))), dtype=torch.float32)
