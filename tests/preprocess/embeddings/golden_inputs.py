"""Inputs of the golden vectors, which need no files: a signal, and weights drawn from their names."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np


def signal(rate: int) -> np.ndarray:
    """Six seconds of a rising tone with noise and a silent second, float32 [time]."""
    time = np.arange(6 * rate) / rate
    tone = 0.4 * np.sin(2 * np.pi * (200 * time + 300 * time**2)) * (1 + np.sin(6 * time)) / 2
    noise = 0.05 * np.random.RandomState(0).randn(len(time))
    return np.where((time > 2) & (time < 3), 0, tone + noise).astype(np.float32)


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Draw weights, float32, by name: plausible ones, so that no layer saturates."""
    made = {}
    for name, shape in shapes.items():
        generator = np.random.RandomState(zlib.crc32(name.encode()))
        values = generator.standard_normal(shape)
        if name.endswith(("var", "variance")):
            values = 0.5 + generator.random_sample(shape)
        elif len(shape) > 1:  # PyTorch: [out, in, ...]; TensorFlow: [..., in, out]
            fan_in = np.prod(shape[:-1]) if name.endswith("kernel") else np.prod(shape[1:])
            values *= np.sqrt(2 / fan_in)
        else:
            values = 0.1 * values + (1 if name.endswith(("gamma", "weight")) else 0)
        made[name] = values.astype(np.float32)
    return made
