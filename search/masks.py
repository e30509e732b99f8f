"""Dropout masks as PyTorch's CPU generator draws them, without its cost: some 2 ns an element instead of 25.

`Tensor.bernoulli_(p)` takes two 32-bit words of a Mersenne twister per element (Matsumoto & Nishimura 1998, MT19937), keeps 53
bits of them as a fraction in [0, 1) and gives 1 where it is less than p, one element after another. Here the twister's 624 words
are made and compared block by block, which the compiler turns into vector instructions.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import numba
import numpy as np
import torch

from preprocess.compiled import compiled, inlined

WORDS, SHIFT = 624, 397  # of the twister's state


def draw(seed: int, keep: float, out: np.ndarray) -> None:
    """What `manual_seed(seed)` and then `bernoulli_(keep)` on the CPU draw; `out`: uint8 [elements]."""
    if _as_torch_draws():
        _draw(np.uint64(seed % 2**64), keep, out)
    else:
        _draw_with_torch(seed, keep, out)


@functools.cache
def _as_torch_draws() -> bool:
    """Whether this PyTorch draws as written above (1,000 elements are compared); one that does not draws for itself."""
    ours, theirs = np.empty((2, 1000), np.uint8)
    _draw(np.uint64(2**40 + 1), 0.7, ours)
    _draw_with_torch(2**40 + 1, 0.7, theirs)
    return bool((ours == theirs).all())


def _draw_with_torch(seed: int, keep: float, out: np.ndarray) -> None:
    generator = torch.Generator()
    generator.manual_seed(seed)
    out[:] = torch.empty(len(out)).bernoulli_(keep, generator=generator).numpy()


@inlined
def _twisted(word, following, shifted):
    mixed = (word & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
    return shifted ^ (mixed >> np.uint32(1)) ^ ((np.uint32(0) - (mixed & np.uint32(1))) & np.uint32(0x9908B0DF))


@inlined
def _tempered(word):
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
    word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
    return word ^ (word >> np.uint32(18))


@compiled
def _draw(seed: np.uint64, keep: float, out: np.ndarray) -> None:
    state, words = np.empty(WORDS, np.uint32), np.empty(WORDS, np.uint32)
    word = np.uint32(seed & np.uint64(0xFFFFFFFF))
    state[0] = word
    for i in range(1, WORDS):
        word = np.uint32(np.uint32(1812433253) * (word ^ (word >> np.uint32(30))) + np.uint32(i))
        state[i] = word
    bound = np.uint64(np.ceil(keep * 2.0**53))
    for done in range(0, len(out), WORDS // 2):
        for i in range(WORDS - SHIFT):
            state[i] = _twisted(state[i], state[i + 1], state[i + SHIFT])
        for i in range(WORDS - SHIFT, WORDS - 1):
            state[i] = _twisted(state[i], state[i + 1], state[i + SHIFT - WORDS])
        state[WORDS - 1] = _twisted(state[WORDS - 1], state[0], state[SHIFT - 1])
        for i in range(WORDS):
            words[i] = _tempered(state[i])
        for i in range(min(WORDS // 2, len(out) - done)):
            fraction = (np.uint64(words[2 * i] & np.uint32(0x1FFFFF)) << np.uint64(32)) | np.uint64(words[2 * i + 1])
            out[done + i] = fraction < bound


cast(Any, _draw).compile((numba.uint64, numba.float64, numba.uint8[::1]))  # now, or loaded: once for all workers
