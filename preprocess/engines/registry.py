"""Names of the engines, and their construction.

Another package adds an engine with an entry point of the group `shardwave.engines`. The entry point refers to
a callable `(config: SpectrogramConfig, device: str) -> Engine` (see `shardwave.preprocess.engines.base`).
"""

from __future__ import annotations

import importlib.util
import logging

from shardwave.common import plugins
from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.base import NO_CUDA, NO_DALI, Engine

_log = logging.getLogger(__name__)
ENGINES = ("numba", "torch", "dali", "reference")
DEVICES = ("cpu", "cuda")
CPU_ONLY = ("numba", "reference")
WITH_STRIPS = ("numba", "torch", "reference")
NOT_ON_CUDA = "engine {} runs on the CPU only: use --device cpu, or --engine torch or dali"


def resolve(engine: str, device: str) -> tuple[str, str]:
    """Replace `auto` by the name of an engine and of a device.

    Engine `auto` is `torch` on CUDA and `numba` on the CPU. Device `auto` is `cuda` if PyTorch sees a CUDA
    device and the engine can use it, else `cpu`.

    Args:
        engine: `auto`, one of `ENGINES`, or the name of an extension.
        device: `auto` or one of `DEVICES`.

    Returns:
        Names of the engine and of the device.

    Raises:
        UsageError: The engine or device is unknown or not available; the message contains the remedy.
    """
    if engine not in ("auto", *ENGINES):
        if plugins.load("engines", engine) is None:
            raise UsageError(
                f"engine must be one of {', '.join(('auto', *ENGINES, *plugins.names('engines')))}, got "
                f"{engine}"
            )
        return engine, "cpu" if device == "auto" else device
    if device not in ("auto", *DEVICES):
        raise UsageError(f"device must be one of auto, {', '.join(DEVICES)}, got {device}")
    if engine == "dali" and not _importable("nvidia.dali"):
        raise UsageError(NO_DALI)
    if engine in CPU_ONLY:
        if device == "cuda":
            raise UsageError(NOT_ON_CUDA.format(engine))
        return engine, "cpu"
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            _log.info("device %s: cuda, %s", device, torch.cuda.get_device_name())
            device = "cuda"
        elif device == "cuda":
            raise UsageError(NO_CUDA)
        else:
            _log.info("device auto: cpu, PyTorch %s sees no CUDA device", torch.__version__)
            device = "cpu"
    if engine == "auto":
        engine = automatic(device)
        _log.info("engine auto: %s, the fastest on %s that reads every format", engine, device)
    return engine, device


def automatic(device: str) -> str:
    """Return the name of the engine that `auto` selects on a device."""
    return "torch" if device == "cuda" else "numba"


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def make_engine(engine: str, device: str, config: SpectrogramConfig) -> Engine:
    """Create an engine.

    Args:
        engine: One of `ENGINES` or the name of an extension, as `resolve` returns it.
        device: One of `DEVICES`.
        config: Parameters of the images and features.

    Returns:
        The engine.

    Raises:
        UsageError: The engine or device is unknown or not available.
    """
    if engine == "numba":
        from shardwave.preprocess.engines.numba.engine import NumbaEngine

        return NumbaEngine(config)
    if engine == "torch":
        from shardwave.preprocess.engines.torch import TorchEngine

        return TorchEngine(config, device)
    if engine == "dali":
        from shardwave.preprocess.engines.dali import DaliEngine

        return DaliEngine(config, device)
    if engine == "reference":
        from shardwave.preprocess.engines.reference import ReferenceEngine

        return ReferenceEngine(config)
    extension = plugins.load("engines", engine)
    if extension is None:
        raise UsageError(
            f"engine must be one of {', '.join((*ENGINES, *plugins.names('engines')))}, got {engine}"
        )
    instance: Engine = extension(config, device)
    return instance


def make_strip_engine(engine: str, device: str, config: SpectrogramConfig) -> Engine:
    """Create an engine whose outputs are strips: images that are not resized along time.

    `EngineOutput.full` is then a list of uint8 [image_size, frames] in Fortran order, so that consecutive
    frames are consecutive in memory; there are no images of slices.

    Args:
        engine: One of `WITH_STRIPS`.
        device: One of `DEVICES`.
        config: Parameters of the images and features.

    Raises:
        UsageError: The engine has no strips, or is not available.
    """
    check_strips(engine)
    instance = make_engine(engine, device, config)
    instance.strips = True
    return instance


def check_strips(engine: str) -> None:
    """Raise UsageError if an engine has no strips."""
    if engine not in WITH_STRIPS:
        raise UsageError(f"layout strip needs one of the engines {', '.join(WITH_STRIPS)}, got {engine}")
