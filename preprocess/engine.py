"""The engine interface: clips in, images (and features) out. One file per engine implements it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from preprocess.config import SpectrogramConfig
from preprocess.errors import BadAudio, UsageError
from preprocess.limits import DEFAULTS, Limits

if TYPE_CHECKING:
    from preprocess.decode import Decoded

_log = logging.getLogger(__name__)
ENGINES = ("torch", "dali", "reference")
DEVICES = ("cpu", "cuda")
NO_CUDA = "device cuda: PyTorch sees no CUDA device here; use --device cpu, or install a driver and a CUDA build of torch"
NO_COMPILER = (
    "engine torch on cuda compiles its kernels by Triton when first used, and {} is missing: "
    "install it, or use --engine dali, or --device cpu"
)
NO_DALI = "engine dali: NVIDIA DALI is not installed; pip install 'shardwave[dali]', or use --engine torch"
QUIETEST, LOUDEST = (
    1e-9,
    1e15,
)  # largest sample of a clip; beyond these float32 has no room for powers 80 dB under, or at, the maximum


class Segment(NamedTuple):
    """A part of an audio file."""

    path: Path
    start: float | None  # seconds; None: the file's beginning
    end: float | None  # seconds; None: the file's end


class EngineOutput(NamedTuple):
    """What an engine makes of a batch of clips; row 0 of a clip's features is the whole clip, row 1 + i its slice i."""

    full: np.ndarray  # uint8 [batch, size, size]: [frequency, time], low frequency first
    slices: list[np.ndarray]  # batch x uint8 [slices of the clip, size, size]
    features: list[np.ndarray] | None  # batch x float32 [1 + slices of the clip, features]


class ClipOutput(NamedTuple):
    """What `stream` makes of one file."""

    full: np.ndarray  # uint8 [size, size]
    slices: np.ndarray  # uint8 [slices, size, size]
    features: np.ndarray | None  # float32 [1 + slices, features]
    samples: int  # at config.sample_rate, before fitting
    source_rate: int  # Hz, of the file
    channels: int  # of the file
    seconds: float  # of the file
    crc32: int | None  # of the file's bytes, where that was asked for and came with reading them
    remark: str | None  # what was wrong with a file that is used all the same


class Engine(Protocol):
    """Engines never start processes; they may keep buffers between calls.

    An engine may also offer `stream(sources, summed, limits)`, a generator like the function `stream`, if it has a better way
    than file after file.
    """

    name: str  # one of ENGINES
    device: str  # one of DEVICES
    config: SpectrogramConfig

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Images and features of `clips` (each float32 [time], mono at config.sample_rate, finite).

        An engine with an attribute `integers` takes int16 too, whose full scale is 32,768.
        """
        ...


def stream(
    engine: Engine, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
    """Decode and transform files, or segments of files, in their order.

    Args:
        engine: Computes images and features.
        sources: The files and segments.
        summed: Return the files' CRC-32 too, where that needs no second reading.
        limits: What of a file is accepted.

    Yields:
        The number of the source and its output; for a file that cannot be used, its `BadAudio`.
    """

    own = getattr(engine, "stream", None)
    if own is not None:
        yield from own(sources, summed, limits)
        return
    integers = hasattr(engine, "integers")
    for number, source in enumerate(sources):
        try:
            decoded = decode_source(source, engine.config.sample_rate, summed=summed, integers=integers, limits=limits)
        except BadAudio as error:
            yield number, error
            continue
        yield number, clip_output(engine([decoded.samples]), 0, decoded)


def decode_source(source: Path | Segment, sample_rate: int, **options: Any) -> Decoded:
    """Decode a file or a segment of one (see `preprocess.decode.decode`)."""
    from preprocess.decode import decode

    if isinstance(source, Segment):
        return decode(source.path, sample_rate, start=source.start, end=source.end, **options)
    return decode(source, sample_rate, **options)


def clip_output(output: EngineOutput, i: int, decoded: Decoded) -> ClipOutput:
    """Clip i of a batch, with what decoding told about its file."""
    features = None if output.features is None else output.features[i]
    return ClipOutput(output.full[i], output.slices[i], features, len(decoded.samples), *decoded[1:])


def fit_clip(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """The clip [time] as `config.fit` has it: followed by zeros or cut off at `config.fitted(len(clip))` samples."""
    samples = config.fitted(len(clip))
    return clip[:samples] if samples <= len(clip) else np.pad(clip, (0, samples - len(clip)))


def conditioned(clip: np.ndarray, n_fft: int) -> tuple[np.ndarray, int]:
    """The clip as contiguous float32, n_fft samples or more, divided by 2 ** exponent where its powers would leave a float's
    range.

    Images are relative to the clip's maximum, so that the division leaves no trace in them; returned are samples and exponent
    (mostly 0).
    """
    samples = np.zeros(max(len(clip), n_fft), np.float32) if len(clip) < n_fft else np.ascontiguousarray(clip, np.float32)
    if len(clip) < n_fft:
        samples[: len(clip)] = clip
    largest = float(max(samples.max(), -samples.min()))
    if largest == 0 or QUIETEST < largest < LOUDEST:
        return samples, 0
    exponent = int(np.frexp(largest)[1])
    return np.ldexp(samples, -exponent), exponent


def resolve(engine: str, device: str) -> tuple[str, str]:
    """The (engine, device) that `auto` stands for here; a named one that is not there raises UsageError with the remedy."""
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine}")
    if device not in ("auto", *DEVICES):
        raise UsageError(f"device must be one of auto, {', '.join(DEVICES)}, got {device}")
    if engine == "auto":
        engine = "torch"
        _log.info("engine auto: torch, which reads every format and is the fastest here on CPU and GPU")
    if engine == "dali" and not _importable("nvidia.dali"):
        raise UsageError(NO_DALI)
    if engine == "reference":
        if device == "cuda":
            raise UsageError("engine reference runs on the CPU only: use --device cpu, or --engine torch or dali")
        return engine, "cpu"
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            missing = _missing_for_triton() if engine == "torch" else None
            if missing:
                raise UsageError(NO_COMPILER.format(missing))
            _log.info("device %s: cuda, %s", device, torch.cuda.get_device_name())
            return engine, "cuda"
        if device == "cuda":
            raise UsageError(NO_CUDA)
        _log.info("device auto: cpu, PyTorch %s sees no CUDA device", torch.__version__)
    return engine, "cpu"


def _missing_for_triton() -> str | None:
    """What Triton needs and does not find here."""
    if not _importable("triton"):
        return "triton (PyTorch for Linux brings it)"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler (gcc or clang)"
    if not Path(sysconfig.get_config_var("INCLUDEPY"), "Python.h").exists():
        return "Python.h (package python3-dev)"
    return None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


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
