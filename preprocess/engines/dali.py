"""The DALI engine: spectrogram, mel, decibel and resize operators of NVIDIA DALI, on the CPU or a GPU.

One pipeline computes the images of a batch of clips from their samples. It is asynchronous: while it computes
a batch, the next clips are decoded and fed. DALI has no operators for `log` bands and features, which are
computed on the same device from the powers that the pipeline returns; a second pipeline then draws the bands.

Files are decoded by `shardwave.preprocess.audio`: the result of DALI's resampler differs from that of soxr by
up to 183 levels, DALI does not read MP3, and one file that it cannot decode fails the whole batch.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio, UsageError
from shardwave.preprocess.audio.decode import Decoded
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

BATCH, DEPTH = 8, 2  # samples of a batch, and batches in a pipeline at a time
VIEWS = 16  # maximum number of views that a pipeline draws of a sample; more views need several samples


class Sample(NamedTuple):
    """A clip with some of its views, which the pipeline draws together."""

    samples: np.ndarray  # float32 [time], divided by 2 ** exponent
    exponent: int
    bounds: list[tuple[int, int]]  # frames of all slices of the clip
    views: list[tuple[int, int]]  # frames of the views to draw
    last: bool  # whether these are the last views of the clip


class DaliEngine(Engine):
    """Compute images and features with NVIDIA DALI.

    Args:
        config: Parameters of the images and features.
        device: `cpu` or `cuda` (the current CUDA device of this thread).

    Raises:
        UsageError: DALI is not installed, or there is no CUDA device.
    """

    name = "dali"

    def __init__(self, config: SpectrogramConfig, device: str) -> None:
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
        self._bands: Any = frequency_bands(config) if config.frequency_scale == "log" else None
        # clips of one length have as many slices; those of other lengths get some views for nothing
        self._views = min(VIEWS, 1 + config.slices) if config.slice_seconds is None else VIEWS // 2

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Compute the images and features of clips, see `Engine.__call__`."""
        size = self.config.image_size
        full, slices, features = np.empty((len(clips), size, size), np.uint8), [], []
        for i, (images, numbers) in enumerate(self._outputs(clips)):
            full[i] = images[0]
            slices.append(images[1:])
            features.append(numbers)
        return EngineOutput(full, slices, features if self.config.features else None)

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """Decode files and compute their images and features, see `Engine.stream`."""
        waiting = deque[Decoded | BadAudio]()

        def clips() -> Iterator[np.ndarray]:
            for source in sources:
                try:
                    clip = decode_source(source, self.config.sample_rate, summed=summed, limits=limits)
                except BadAudio as error:
                    waiting.append(error)
                    continue
                waiting.append(clip)
                yield clip.samples

        numbers = count()
        for images, features in self._outputs(clips()):
            while isinstance(clip := waiting.popleft(), BadAudio):
                yield next(numbers), clip
            output = ClipOutput(images[0], images[1:], features, len(clip.samples), *clip[1:])
            yield next(numbers), output
        for error in waiting:
            assert isinstance(error, BadAudio)
            yield next(numbers), error

    def _outputs(self, clips: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield images [1 + slices, size, size] and features of each clip, a batch behind the input."""
        rest, running = self._samples(clips), deque[list[Sample]]()
        parts: list[np.ndarray] = []
        try:
            while (batch := list(islice(rest, BATCH))) or running:
                if batch:
                    data = [sample.samples for sample in batch]
                    self._feed(self._pipeline, data, batch if self._bands is None else ())
                    running.append(batch)
                if not batch or len(running) == DEPTH:
                    yield from self._results(running.popleft(), parts)
        finally:
            for _ in running:  # of a caller that has left early
                self._pipeline.outputs()

    def _samples(self, clips: Iterable[np.ndarray]) -> Iterator[Sample]:
        for clip in clips:
            bounds = self.config.slice_bounds(len(clip))
            samples, exponent = conditioned(fit_clip(clip, self.config), self.config.n_fft)
            views = [(0, self.config.frames(len(clip))), *bounds]
            for start in range(0, len(views), self._views):
                some = views[start : start + self._views]
                yield Sample(samples, exponent, bounds, some, start + len(some) == len(views))

    def _feed(
        self, pipeline: Any, data: Sequence[Any], batch: Sequence[Sample] = (), *, start: bool = True
    ) -> None:
        """Feed a batch and start its run; a pipeline that does not draw needs no samples.

        Views that a sample does not have show its first frame.
        """
        pipeline.feed_input("input", list(data))
        views = [sample.views + [(0, 1)] * (self._views - len(sample.views)) for sample in batch]
        for i, name in enumerate(("starts", "stops") if views else ()):
            pipeline.feed_input(name, [np.array(frames, np.int32)[:, i].copy() for frames in views])
        if start:
            pipeline.schedule_run()

    def _results(self, batch: list[Sample], parts: list[np.ndarray]) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield images and features of the clips that are complete; `parts` are images of one that is not."""
        first, *rest = self._pipeline.outputs()
        if self._bands is None:
            images = self._arrays(first)
        else:
            powers = self._arrays(first)
            self._feed(self._band_pipeline, [self._banded(power) for power in powers], batch)
            images = self._arrays(self._band_pipeline.outputs()[0])
        measured = [self._arrays(output) for output in rest]
        for i, sample in enumerate(batch):
            image = images[i] if isinstance(images[i], np.ndarray) else images[i].cpu().numpy()
            parts.append(np.array(image[: len(sample.views), :, :, 0]))
            if sample.last:
                features = None
                if self.config.features:
                    features = self._features(measured[0][i], measured[1][i], sample)
                yield np.concatenate(parts), features
                parts.clear()

    def _arrays(self, output: Any) -> list[Any]:
        """Return arrays or, on a GPU, tensors, which are valid until the pipeline's next outputs."""
        if self.device == "cpu":
            return [np.asarray(output[i]) for i in range(len(output))]
        import torch

        return [torch.from_dlpack(output[i]) for i in range(len(output))]

    def _banded(self, power: Any) -> Any:
        return self._on_device(self._bands) @ power

    def _features(self, power: Any, samples: Any, sample: Sample) -> np.ndarray:
        import torch

        from shardwave.preprocess.dsp.statistics import features
        from shardwave.preprocess.engines import torch_features

        power, samples = (
            torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in (power, samples)
        )
        measures = torch_features.measure(power.T.contiguous() * 4.0**sample.exponent, self.config).T
        rates = torch_features.zero_crossing_rate(samples, 2.0**sample.exponent, self.config)
        return np.asarray(features(measures, rates, sample.bounds, self.config).cpu())

    @functools.cached_property
    def _pipeline(self) -> Any:
        """Pipeline from samples to images, for `log` bands to power; for features also power and samples."""
        pipeline = self._new_pipeline()
        with pipeline:
            pipeline.set_outputs(*self._from_audio())
        return self._begun(pipeline, np.zeros(self.config.n_fft, np.float32), draws=self._bands is None)

    @functools.cached_property
    def _band_pipeline(self) -> Any:
        """Pipeline from the powers of bands to images."""
        pipeline = self._new_pipeline()
        with pipeline:
            pipeline.set_outputs(self._images(self._input("input", self._dali.types.FLOAT, 2, self.device)))
        bands = np.zeros((self.config.image_size, 1), np.float32)
        return self._begun(pipeline, self._on_device(bands), draws=True)

    def _begun(self, pipeline: Any, data: Any, *, draws: bool) -> Any:
        """Build a pipeline, and run it DEPTH times: its first `schedule_run` starts that many runs."""
        pipeline.build()
        nothing = [Sample(data, 0, [], [], last=True)] * draws
        for left in reversed(range(DEPTH)):
            self._feed(pipeline, [data], nothing, start=left == 0)
        for _ in range(DEPTH):
            pipeline.outputs()
        return pipeline

    def _on_device(self, array: np.ndarray) -> Any:
        if self.device == "cpu":
            return array
        import torch

        return torch.from_numpy(array).to(self.device)

    def _new_pipeline(self) -> Any:
        device = None
        if self.device == "cuda":
            import torch

            device = torch.cuda.current_device()
        asynchronous = {"prefetch_queue_depth": DEPTH, "exec_async": True, "exec_pipelined": True}
        return self._dali.Pipeline(batch_size=BATCH, num_threads=1, device_id=device, **asynchronous)

    def _input(self, name: str, dtype: Any, dimensions: int, device: str = "cpu") -> Any:
        kind = "gpu" if device == "cuda" else "cpu"
        return self._dali.fn.external_source(name=name, dtype=dtype, ndim=dimensions, device=kind)

    def _from_audio(self) -> tuple[Any, ...]:
        config, fn = self.config, self._dali.fn
        audio = self._input("input", self._dali.types.FLOAT, 1)
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
        images = self._images(bands) if self._bands is None else power
        return (images, power, audio) if config.features else (images,)

    def _images(self, power: Any) -> Any:
        """Build the graph: power [frequency, frames] to images [views, size, size, 1], rounded half up."""
        fn, types, size, floor = self._dali.fn, self._dali.types, self.config.image_size, self.config.floor_db
        level = fn.to_decibels(power, multiplier=10.0, cutoff_db=floor)
        lines = fn.expand_dims(fn.reinterpret(level, layout="HW"), axes=[2], new_axis_names="C")
        lines = self._resize(lines, resize_y=size)
        starts, stops = (self._input(name, types.INT32, 1) for name in ("starts", "stops"))
        images = []
        for i in range(self._views):
            level = self._resize(lines[:, starts[i] : stops[i]], resize_x=size)
            images.append(
                fn.cast(self._dali.math.floor((level - floor) * (255 / -floor) + 0.5), dtype=types.UINT8)
            )
        return fn.stack(*images)

    def _resize(self, image: Any, **extent: int) -> Any:
        types = self._dali.types
        return self._dali.fn.resize(
            image,
            mode="stretch",
            interp_type=types.INTERP_TRIANGULAR,
            antialias=True,
            dtype=types.FLOAT,
            **extent,
        )
