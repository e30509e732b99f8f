"""The DALI engine: spectrogram, mel, decibel and resize operators of NVIDIA DALI, on the CPU or a GPU.

The first pipeline computes lines from samples (decibels, resized along frequency). The second resizes the
lines of a full clip or of a slice to an image. DALI has no operators for `log` bands and features; they are
computed between pipelines, on the same device.

Files are decoded by `shardwave.preprocess.audio`: the result of DALI's resampler differs from that of soxr by
up to 183 levels, DALI does not read MP3, and one file that it cannot decode fails the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.filters import frequency_bands
from shardwave.preprocess.engines.base import NO_CUDA, NO_DALI, Engine, EngineOutput, conditioned, fit_clip

CLIPS, VIEWS = 8, 64  # batch sizes of the first and of the second pipeline


class DaliEngine(Engine):
    """Compute images and features with NVIDIA DALI.

    Args:
        config: Parameters of the images and features.
        device: `cpu` or `cuda`.

    Raises:
        UsageError: DALI is not installed, or there is no CUDA device.
    """

    name = "dali"
    together = CLIPS

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
        self._bands = frequency_bands(config) if config.frequency_scale == "log" else None
        self._pipelines: dict[str, Any] = {}

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Compute the images and features of clips, see `Engine.__call__`."""
        size = self.config.image_size
        full, slices, features = np.empty((len(clips), size, size), np.uint8), [], []
        for start in range(0, len(clips), CLIPS):
            for i, (images, numbers) in enumerate(self._batch(clips[start : start + CLIPS]), start):
                full[i] = images[0]
                slices.append(images[1:])
                features.append(numbers)
        return EngineOutput(full, slices, features if self.config.features else None)

    def _batch(self, clips: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield images [1 + slices, size, size] and features of each of up to CLIPS clips."""
        ready = [conditioned(fit_clip(clip, self.config), self.config.n_fft) for clip in clips]
        lines, *rest = self._run("samples", [samples for samples, _ in ready])
        if self._bands is not None:
            lines = self._run("bands", [self._banded(power) for power in lines])[0]
        bounds = [self.config.slice_bounds(len(clip)) for clip in clips]
        views = [
            line[:, start:stop]
            for line, parts in zip(lines, bounds, strict=True)
            for start, stop in [(0, line.shape[1]), *parts]
        ]
        images = [
            image
            for start in range(0, len(views), VIEWS)
            for image in self._draw(views[start : start + VIEWS])
        ]
        for i, ((_, exponent), parts) in enumerate(zip(ready, bounds, strict=True)):
            own, images = np.stack(images[: 1 + len(parts)]), images[1 + len(parts) :]
            yield (
                own,
                self._features(rest[0][i], rest[1][i], exponent, parts) if self.config.features else None,
            )

    def _draw(self, views: list[Any]) -> list[np.ndarray]:
        """Resize lines [size, frames, 1] to images [size, size]."""
        contiguous = [
            np.ascontiguousarray(view) if isinstance(view, np.ndarray) else view.contiguous()
            for view in views
        ]
        images = self._run("views", contiguous)[0]
        return [
            np.array(image if isinstance(image, np.ndarray) else image.cpu())[:, :, 0] for image in images
        ]

    def _banded(self, power: Any) -> Any:
        if isinstance(power, np.ndarray):
            return self._bands @ power
        import torch

        return torch.tensor(self._bands, device=power.device) @ power

    def _features(self, power: Any, samples: Any, exponent: int, bounds: list[tuple[int, int]]) -> np.ndarray:
        import torch

        from shardwave.preprocess.dsp.statistics import features
        from shardwave.preprocess.engines import torch_features

        power, samples = (
            torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in (power, samples)
        )
        measures = torch_features.measure(power.T.contiguous() * 4.0**exponent, self.config).T
        rates = torch_features.zero_crossing_rate(samples, 2.0**exponent, self.config)
        return np.asarray(features(measures, rates, bounds, self.config).cpu())

    def _run(self, name: str, data: list[Any]) -> list[list[Any]]:
        """Run a pipeline on a batch and return its outputs, each a list of arrays (on a GPU, of tensors).

        The arrays are valid until the next run of the pipeline.
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
            "bands": lambda: self._lines(self._input(2)),
            "views": self._images,
        }
        device = {"device_id": None if self.device == "cpu" else 0}
        once = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}
        pipeline = self._dali.Pipeline(
            batch_size=VIEWS if name == "views" else CLIPS, num_threads=1, **device, **once
        )
        with pipeline:
            outputs = graph[name]()
            pipeline.set_outputs(*(outputs if isinstance(outputs, tuple) else (outputs,)))
        pipeline.build()
        return pipeline

    def _input(self, dimensions: int, host: bool = False) -> Any:
        device = "gpu" if self.device == "cuda" and not host else "cpu"
        return self._dali.fn.external_source(
            name="input", dtype=self._dali.types.FLOAT, ndim=dimensions, device=device
        )

    def _from_audio(self) -> Any:
        """Build the graph from samples to lines, or to power for `log` bands.

        With features, power and samples are outputs too.
        """
        config, fn = self.config, self._dali.fn
        audio = self._input(1, host=True)
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
        """Build the graph from power [frequency, frames] to resized decibels [size, frames, 1]."""
        fn = self._dali.fn
        level = fn.to_decibels(power, multiplier=10.0, cutoff_db=self.config.floor_db)
        return self._resize(
            fn.expand_dims(fn.reinterpret(level, layout="HW"), axes=[2], new_axis_names="C"),
            resize_y=self.config.image_size,
        )

    def _images(self) -> Any:
        """Build the graph from lines [size, frames, 1] to images [size, size, 1], rounded half up."""
        fn, floor = self._dali.fn, self.config.floor_db
        lines = fn.reinterpret(self._input(3), layout="HWC")
        level = (self._resize(lines, resize_x=self.config.image_size) - floor) * (255 / -floor)
        return fn.cast(self._dali.math.floor(level + 0.5), dtype=self._dali.types.UINT8)

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
