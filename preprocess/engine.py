"""The engine interface: clips in, images (and features) out. One file per engine implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from preprocess.config import SpectrogramConfig
from preprocess.errors import UsageError

ENGINES = ("torch", "dali", "reference")
DEVICES = ("cpu", "cuda")


class EngineOutput(NamedTuple):
    """What an engine makes of a batch of clips; row 0 of a clip's features is the whole clip, row 1 + i its slice i."""

    full: np.ndarray  # uint8 [batch, size, size]: [frequency, time], low frequency first
    slices: list[np.ndarray]  # batch x uint8 [slices of the clip, size, size]
    features: list[np.ndarray] | None  # batch x float32 [1 + slices of the clip, features]


class Engine(Protocol):
    """Engines never start processes; they may keep buffers between calls."""

    name: str  # one of ENGINES
    device: str  # one of DEVICES
    config: SpectrogramConfig

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Images and features of `clips` (each float32 [time], mono at config.sample_rate, finite)."""
        ...


def resolve(engine: str, device: str) -> tuple[str, str]:
    """The (engine, device) that `auto` stands for here; a named one that is not there raises UsageError with the remedy."""
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine}")
    if device not in ("auto", *DEVICES):
        raise UsageError(f"device must be one of auto, {', '.join(DEVICES)}, got {device}")
    if engine == "auto":
        engine = "torch"
    if engine == "reference":
        if device == "cuda":
            raise UsageError("engine reference runs on the CPU only: use --device cpu, or --engine torch or dali")
        return engine, "cpu"
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return engine, "cuda"
        if device == "cuda":
            raise UsageError("device cuda: PyTorch sees no CUDA device here; use --device cpu, or install a driver and a CUDA build of torch")
    return engine, "cpu"


def make_engine(engine: str, device: str, config: SpectrogramConfig) -> Engine:
    """Build the named engine on the named device (as `resolve` returns them)."""
    if engine == "reference":
        from preprocess.engine_reference import ReferenceEngine

        return ReferenceEngine(config)
    if engine == "torch" and device == "cuda":
        from preprocess.engine_torch_cuda import TorchCudaEngine

        return TorchCudaEngine(config)
    if engine == "torch":
        from preprocess.engine_torch import TorchEngine

        return TorchEngine(config)
    if engine == "dali":
        from preprocess.engine_dali import DaliEngine

        return DaliEngine(config, device)
    raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {engine}")
