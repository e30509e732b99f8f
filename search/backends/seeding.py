"""Seeds for libraries that draw from NumPy's global generator."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def seeded(text: str) -> Iterator[None]:
    """Seed NumPy's global generator by a text, and restore its state on exit."""
    state = np.random.get_state()
    np.random.seed(random.Random(text).getrandbits(32))
    try:
        yield
    finally:
        np.random.set_state(state)
