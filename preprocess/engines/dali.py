"""NVIDIA DALI, on the CPU or a GPU: its own spectrogram, mel filter bank, decibel and resize operators, in two pipelines.

The first takes audio to lines (decibels, resized along frequency), the second takes lines, whole or one slice's, to images. What
DALI has no operator for is done between pipelines, on the same device: the `log` bands (one product of matrices) and the
features.

DALI decodes what it decodes to the bit and cannot fail on: 16-bit little-endian WAV at the configured rate, whose headers are
checked before. Its resampler differs from soxr's by up to 183 levels, it reads no MP3, and one file that it cannot decode fails
its batch: everything else is fed in decoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shardwave.common import regular_file
from shardwave.common.errors import BadAudio, UsageError
from shardwave.preprocess.audio.containers import identify, layout
from shardwave.preprocess.config import DEFAULTS, Limits, SpectrogramConfig
from shardwave.preprocess.dsp.filters import frequency_bands
from shardwave.preprocess.engines.base import (
    NO_CUDA,
    NO_DALI,
    ClipOutput,
    Engine,
    EngineOutput,
    Segment,
    conditioned,
    decode_source,
    fit_clip,
)

CLIPS, VIEWS = 8, 64  # at once, in the first and in the second pipeline
DECODED = ("i", 16, False)  # what DALI decodes as we do: the end of a `pcm.Samples`


class _Input(NamedTuple):
    """One clip on its way into the first pipeline."""

    data: np.ndarray  # float32 samples, or a file's uint8
    exponent: int  # the samples were divided by 2 ** exponent
    samples: int
    origin: tuple[int, int, float, int | None, str | None]  # the fields of `Decoded` but for the samples


class DaliEngine(Engine):
    """See the module's docstring."""

    name = "dali"

    def __init__(self, config: SpectrogramConfig, device: str):
        try:
            import nvidia.dali
        except ImportError as error:
            raise UsageError(NO_DALI) from error
        if device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise UsageError(NO_CUDA)
        self.config, self.device = config, device
        self._dali: Any = nvidia.dali
        self._bands = frequency_bands(config) if config.frequency_scale == "log" else None
        self._pipelines: dict[str, Any] = {}

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        made = []
        origin = (self.config.sample_rate, 1, 0.0, None, None)
        inputs = [_Input(*self._conditioned(clip), len(clip), origin) for clip in clips]
        for start in range(0, len(inputs), CLIPS):
            made += self._batch("samples", inputs[start : start + CLIPS])
        size = self.config.image_size
        full = np.stack([clip.full for clip in made]) if made else np.empty((0, size, size), np.uint8)
        features = [clip.features for clip in made if clip.features is not None]
        return EngineOutput(full, [clip.slices for clip in made], features if self.config.features else None)

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """See `Engine.stream`; files go through in batches."""
        waiting: list[_Input | BadAudio] = []
        first = 0
        for source in sources:
            try:
                waiting.append(self._read(source, summed, limits))
            except BadAudio as error:
                waiting.append(error)
            if len(waiting) == CLIPS:
                yield from enumerate(self._mixed(waiting), first)
                first, waiting = first + CLIPS, []
        yield from enumerate(self._mixed(waiting), first)

    def _read(self, source: Path | Segment, summed: bool, limits: Limits) -> _Input:
        """The file's bytes where DALI decodes it, else its samples."""
        whole = None if isinstance(source, Segment) else self._encoded(source, summed, limits)
        if whole is not None:
            return whole
        decoded = decode_source(source, self.config.sample_rate, summed=summed, limits=limits)
        return _Input(*self._conditioned(decoded.samples), len(decoded.samples), decoded[1:])

    def _encoded(self, path: Path, summed: bool, limits: Limits) -> _Input | None:
        """The file's bytes where DALI decodes it."""
        config = self.config
        try:
            with FileIO(path, opener=regular_file.opener) as file:
                head = file.read(4_096)
                size = file.seek(0, 2)
                kind = identify(head)
                found = layout(file, kind, size) if kind in ("wav", "au") else None
                pcm = found.pcm if found is not None and found.reason is None else None
                plain = pcm and pcm.rate == config.sample_rate and pcm[4:] == DECODED
                fits = pcm and config.n_fft <= pcm.frames == config.fitted(pcm.frames) <= limits.seconds * pcm.rate
                if pcm and plain and fits:
                    file.seek(0)
                    data = np.frombuffer(file.readall(), np.uint8)
                    origin = (pcm.rate, pcm.channels, pcm.frames / pcm.rate, zlib.crc32(data.data) if summed else None, None)
                    return _Input(data, 0, pcm.frames, origin)
        except OSError:
            pass  # `decode` tells what is wrong with it
        return None

    def _conditioned(self, clip: np.ndarray) -> tuple[np.ndarray, int]:
        """The clip, fitted, as the pipelines take it."""
        return conditioned(fit_clip(clip, self.config), self.config.n_fft)

    def _mixed(self, waiting: Sequence[_Input | BadAudio]) -> Iterator[ClipOutput | BadAudio]:
        """Files and samples go through pipelines of their own; out they come in their order."""
        made: dict[int, ClipOutput] = {}
        for source, kind in (("encoded", np.uint8), ("samples", np.float32)):
            chosen = [i for i, item in enumerate(waiting) if isinstance(item, _Input) and item.data.dtype == kind]
            if chosen:
                made.update(zip(chosen, self._batch(source, [waiting[i] for i in chosen]), strict=True))  # type: ignore[misc]
        for i, item in enumerate(waiting):
            yield item if isinstance(item, BadAudio) else made[i]

    def _batch(self, source: str, inputs: Sequence[_Input]) -> list[ClipOutput]:
        """Up to CLIPS clips, all samples or all files."""
        lines, *rest = self._run(source, [item.data for item in inputs])
        if self._bands is not None:
            lines = self._run("bands", [self._banded(power) for power in lines])[0]
        views, bounds = [], []
        for item, line in zip(inputs, lines, strict=True):
            bounds.append(self.config.slice_bounds(item.samples))
            views += [line[:, start:stop] for start, stop in [(0, line.shape[1]), *bounds[-1]]]
        images = [image for start in range(0, len(views), VIEWS) for image in self._draw(views[start : start + VIEWS])]
        made = []
        for i, (item, parts) in enumerate(zip(inputs, bounds, strict=True)):
            own = np.stack(images[: 1 + len(parts)])
            del images[: 1 + len(parts)]
            features = self._features(rest[0][i], rest[1][i], item.exponent, parts) if self.config.features else None
            made.append(ClipOutput(own[0], own[1:], features, item.samples, *item.origin))
        return made

    def _draw(self, views: list[Any]) -> list[np.ndarray]:
        """Lines [size, frames, 1] → images [size, size]."""
        contiguous = [np.ascontiguousarray(view) if isinstance(view, np.ndarray) else view.contiguous() for view in views]
        drawn = self._run("views", contiguous)[0]
        return [np.array(image if isinstance(image, np.ndarray) else image.cpu())[:, :, 0] for image in drawn]

    def _banded(self, power: Any) -> Any:
        if isinstance(power, np.ndarray):
            return self._bands @ power
        import torch

        return torch.tensor(self._bands, device=power.device) @ power

    def _features(self, power: Any, samples: Any, exponent: int, bounds: list[tuple[int, int]]) -> np.ndarray:
        import torch

        from shardwave.preprocess.dsp.statistics import features
        from shardwave.preprocess.engines import torch_features

        power, samples = (torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in (power, samples))
        measures = torch_features.measure(power.T.contiguous() * 4.0**exponent, self.config).T
        rates = torch_features.zero_crossing_rate(samples, 2.0**exponent, self.config)
        return features(measures, rates, bounds, self.config).cpu().numpy()

    def _run(self, name: str, data: list[Any]) -> list[list[Any]]:
        """One run of a pipeline on a batch: its outputs, each a list of arrays (torch tensors on a GPU), good until its next
        run.
        """
        pipeline = self._pipelines.get(name) or self._pipelines.setdefault(name, self._build(name))
        pipeline.feed_input("input", data)
        outputs = pipeline.run()
        if self.device == "cpu":
            return [[np.asarray(output[i]) for i in range(len(output))] for output in outputs]
        import torch

        return [[torch.from_dlpack(output[i]) for i in range(len(output))] for output in outputs]

    def _build(self, name: str) -> Any:
        graph: dict[str, Callable[[], Any]] = {
            "samples": self._from_audio,
            "encoded": lambda: self._from_audio(encoded=True),
            "bands": lambda: self._lines(self._input(2)),
            "views": self._images,
        }
        device = {"device_id": None if self.device == "cpu" else 0}
        once = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}
        pipeline = self._dali.Pipeline(batch_size=VIEWS if name == "views" else CLIPS, num_threads=1, **device, **once)
        with pipeline:
            made = graph[name]()
            pipeline.set_outputs(*(made if isinstance(made, tuple) else (made,)))
        pipeline.build()
        return pipeline

    def _input(self, dimensions: int, kind: str = "FLOAT", host: bool = False) -> Any:
        device = "gpu" if self.device == "cuda" and not host else "cpu"
        return self._dali.fn.external_source(name="input", dtype=getattr(self._dali.types, kind), ndim=dimensions, device=device)

    def _from_audio(self, encoded: bool = False) -> Any:
        """Audio → lines (bands' power where torch has the bands to make); with features also power [bins, frames] and samples."""
        config, fn = self.config, self._dali.fn
        audio = self._input(1, "UINT8" if encoded else "FLOAT", host=True)
        if encoded:
            audio = fn.decoders.audio(audio, downmix=True, dtype=self._dali.types.FLOAT)[0]
        if self.device == "cuda":
            audio = audio.gpu()
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
        shape = {
            "nfft": config.n_fft,
            "window_length": config.n_fft,
            "window_step": config.hop_length,
            "window_fn": window.tolist(),
        }
        power = bands = fn.spectrogram(audio, power=2, center_windows=True, reflect_padding=True, **shape)
        if config.frequency_scale == "mel":
            bands = fn.mel_filter_bank(
                power, nfilter=config.image_size, sample_rate=float(config.sample_rate), mel_formula="slaney"
            )
        lines = bands if self._bands is not None else self._lines(bands)
        return (lines, power, audio) if config.features else lines

    def _lines(self, power: Any) -> Any:
        """Power [frequency, frames] → decibels relative to the clip's maximum, resized along frequency: [size, frames, 1]."""
        fn = self._dali.fn
        level = fn.to_decibels(power, multiplier=10.0, cutoff_db=self.config.floor_db)
        return self._resize(
            fn.expand_dims(fn.reinterpret(level, layout="HW"), axes=[2], new_axis_names="C"), resize_y=self.config.image_size
        )

    def _images(self) -> Any:
        """Lines [size, frames, 1] → images [size, size, 1], rounded half up."""
        fn, floor = self._dali.fn, self.config.floor_db
        lines = fn.reinterpret(self._input(3), layout="HWC")
        level = (self._resize(lines, resize_x=self.config.image_size) - floor) * (255 / -floor)
        return fn.cast(self._dali.math.floor(level + 0.5), dtype=self._dali.types.UINT8)

    def _resize(self, image: Any, **extent: int) -> Any:
        types = self._dali.types
        return self._dali.fn.resize(
            image, mode="stretch", interp_type=types.INTERP_TRIANGULAR, antialias=True, dtype=types.FLOAT, **extent
        )
