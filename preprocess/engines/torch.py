"""The torch engine: framed FFT, powers, logarithm and products with the resize matrices in plain PyTorch, on the CPU or a GPU.

A clip is computed on its own, so that its bytes do not depend on its neighbours. A clip longer than PART frames is transformed
twice, part by part: first for its maximum, then for its images, so that temporaries do not grow with the clip.

On CUDA, files are decoded by a pool of CPU threads, which all engines of a process share. Samples and images pass through pinned
memory on a stream of the engine's own, a few clips in flight, so that decoding, copying, computing and the caller's writing
overlap.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shardwave.common.environment import cores
from shardwave.common.errors import BadAudio, UsageError
from shardwave.preprocess.audio.decode import Decoded
from shardwave.preprocess.config import DEFAULTS, Limits, SpectrogramConfig
from shardwave.preprocess.dsp.filters import BandedMatrix, banded, frequency_bands, resize
from shardwave.preprocess.dsp.statistics import features
from shardwave.preprocess.engines.base import (
    NO_CUDA,
    ClipOutput,
    Engine,
    EngineOutput,
    Segment,
    conditioned,
    decode_source,
    fit_clip,
)
from shardwave.preprocess.engines.torch_features import measure, zero_crossing_rate

IN_FLIGHT = 8  # clips
PART = 1 << 13  # frames whose powers are held at once: 3 minutes, 34 MB
CHUNK = {"cpu": 1 << 17, "cuda": 1 << 24}  # samples of frames transformed at once: on the CPU what stays in cache
ROWS = {"cpu": 64, "cuda": 512}  # of a banded matrix per product: small ones leave out more zeros, large ones start less often
PIXELS = 1 << 24  # of the views that are drawn together
PIECE = 1 << 22  # samples decoded at once
SILENT = -1e4  # log2 of the maximum power of a silent clip

Block = tuple[slice, slice, torch.Tensor]


class TorchEngine(Engine):
    """See the module's docstring."""

    name = "torch"
    integers = True

    def __init__(self, config: SpectrogramConfig, device: str):
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError(NO_CUDA)
        self.config, self.device = config, device
        self._stream = torch.cuda.Stream() if device == "cuda" else None
        bands = frequency_bands(config)
        self._bands = None if bands is None else self._blocks(banded(bands))
        self._along = self._blocks(resize(config.bins if bands is None else config.image_size, config.image_size))
        self._across = functools.lru_cache(maxsize=64)(lambda frames: self._blocks(resize(frames, config.image_size)))
        self._window = torch.hann_window(config.n_fft, device=device)
        if device == "cuda":
            torch.cuda.current_stream().synchronize()  # the tables are there

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        size = self.config.image_size
        made = [finish() for finish in [self._start(Decoded(clip, 0, 1, 0.0, None, None)) for clip in clips]]
        full = np.stack([output.full for output in made]) if made else np.empty((0, size, size), np.uint8)
        numbers = [output.features for output in made if output.features is not None]
        return EngineOutput(full, [output.slices for output in made], numbers if self.config.features else None)

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """See `Engine.stream`."""
        if self.device == "cpu":
            return super().stream(sources, summed, limits)
        return enumerate(self.pipelined(sources, summed, limits))

    def pipelined(self, sources: Iterable[Path | Segment], summed: bool, limits: Limits) -> Iterator[ClipOutput | BadAudio]:
        """Outputs in order, files decoded ahead by threads and IN_FLIGHT clips on their way through the device."""
        read = functools.partial(
            decode_source, sample_rate=self.config.sample_rate, piece=PIECE, summed=summed, integers=True, limits=limits
        )
        flying = deque[Callable[[], ClipOutput | BadAudio]]()
        for future in _ahead(read, sources):
            error = future.exception()
            failed = functools.partial(lambda given: given, error) if isinstance(error, BadAudio) else None
            flying.append(failed or self._start(future.result()))
            if len(flying) == IN_FLIGHT:
                yield flying.popleft()()
        while flying:
            yield flying.popleft()()

    def _start(self, decoded: Decoded) -> Callable[[], ClipOutput]:
        """Begin copying and computing, on CUDA without waiting for the device; returns what waits and gives the output."""
        samples, exponent = conditioned(fit_clip(decoded.samples, self.config), self.config.n_fft)
        bounds = self.config.slice_bounds(len(decoded.samples))
        with torch.inference_mode(), torch.cuda.stream(self._stream), full_precision():
            made = self._compute(self._moved(samples).float(), exponent, bounds)
            made = [tensor if self._stream is None else _to_host(tensor) for tensor in made]
            done = None if self._stream is None else self._stream.record_event()

        def finish() -> ClipOutput:
            if done is not None:
                done.synchronize()
            images, numbers = made[0].numpy(), made[1].numpy() if self.config.features else None
            return ClipOutput(images[0], images[1:], numbers, len(decoded.samples), *decoded[1:])

        return finish

    def _compute(self, samples: torch.Tensor, exponent: int, bounds: list[tuple[int, int]]) -> list[torch.Tensor]:
        """Samples [time] divided by 2 ** exponent → images uint8 [1 + slices, size, size], features [1 + slices, columns]."""
        config, half = self.config, self.config.n_fft // 2
        windows = torch.nn.functional.pad(samples[None], (half, half), mode="reflect")[0].unfold(
            0, config.n_fft, config.hop_length
        )
        measures: list[torch.Tensor] | None = [] if config.features else None
        peak = torch.full((), SILENT, device=self.device)
        for start in range(0, len(windows), PART):
            levels = self._logarithms(windows[start : start + PART], 4.0**exponent, measures)
            peak = torch.maximum(peak, levels.amax())
        images = torch.zeros(1 + len(bounds), config.image_size, config.image_size, dtype=torch.uint8, device=self.device)
        sums: dict[int, torch.Tensor] = {}
        for start in range(0, len(windows), PART):
            if len(windows) > PART:
                levels = self._logarithms(windows[start : start + PART], 0, None)
            self._draw(self._lines(levels, peak), start, [(0, len(windows)), *bounds], images, sums)
        if measures is None:
            return [images]
        rates = zero_crossing_rate(samples, 2.0**exponent, config)
        return [images, features(torch.cat(measures).T.contiguous(), rates, bounds, config)]

    def _logarithms(self, windows: torch.Tensor, scale: float, measures: list[torch.Tensor] | None) -> torch.Tensor:
        """Frames [frames, n_fft] → log2 of the powers of bins or bands [frames, rows]; measures of scaled powers are appended."""
        config = self.config
        levels = torch.empty(len(windows), config.bins if self._bands is None else config.image_size, device=self.device)
        chunk = max(1, CHUNK[self.device] // config.n_fft)
        for frames, out in zip(windows.split(chunk), levels.split(chunk), strict=True):
            spectrum = torch.fft.rfft(frames * self._window)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            if measures is not None:
                measures.append(measure(power * scale, config))
            torch.log2(power if self._bands is None else product(power, self._bands, config.image_size), out=out)
        return levels

    def _lines(self, levels: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """log2 of powers [frames, rows] → levels from 0.5 at the floor to 255.5 at the peak, [frames, size]."""
        floor = self.config.floor_db / (10 * np.log10(2))  # in powers of two
        lines = product(torch.maximum(levels, peak + floor), self._along, self.config.image_size)
        return torch.add(255.5 + peak * (255 / floor), lines, alpha=-255 / floor)  # one pass over the lines

    def _draw(
        self, lines: torch.Tensor, first: int, views: list[tuple[int, int]], images: torch.Tensor, sums: dict[int, torch.Tensor]
    ) -> None:
        """Draw what the frames `lines`, from frame `first` on, hold of the views; of views begun, `sums` holds levels so far."""
        size, last = self.config.image_size, first + len(lines)
        alike: dict[int, list[int]] = {}
        for number, (start, stop) in enumerate(views):
            low, high = max(first, start), min(last, stop)
            if first <= start and stop <= last:
                alike.setdefault(stop - start, []).append(number)
            elif low < high:
                columns, weights = resize(stop - start, size).part(low - start, high - start)
                total = sums.setdefault(number, torch.zeros(size, size, device=self.device))
                total[:, columns] += lines[low - first : high - first].T @ self._moved(weights.T)
                if high == stop:
                    images[number] = sums.pop(number)
        together = max(1, PIXELS // size**2)
        for frames, numbers in alike.items():
            for group in (numbers[i : i + together] for i in range(0, len(numbers), together)):
                stack = torch.stack([lines[views[number][0] - first :][:frames] for number in group])
                for number, image in zip(group, product(stack.mT, self._across(frames), size, torch.uint8), strict=True):
                    images[number] = image

    def _blocks(self, matrix: BandedMatrix) -> list[Block]:
        """The matrix as blocks of rows: these, the columns that have weights there, and the weights [columns, rows]."""
        ends = matrix.first + matrix.counts
        dense, blocks = matrix.dense(int(ends.max())), []
        for start in range(0, len(dense), ROWS[self.device]):
            rows = slice(start, start + ROWS[self.device])
            columns = slice(int(matrix.first[rows].min()), int(ends[rows].max()))
            blocks.append((rows, columns, self._moved(dense[rows, columns].T)))
        return blocks

    def _moved(self, array: np.ndarray) -> torch.Tensor:
        """An array on the device; through pinned memory, so that nothing waits for the device."""
        host = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        return host if self._stream is None else host.pin_memory().to(self.device, non_blocking=True)


def product(values: torch.Tensor, blocks: list[Block], size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """values [..., columns] by the matrix [size, columns] of `blocks`: [..., size] of `dtype`."""
    made = torch.empty(*values.shape[:-1], size, dtype=dtype, device=values.device)
    for rows, columns, weights in blocks:
        made[..., rows] = values[..., columns] @ weights
    return made


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Begin to copy a tensor into pinned memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Products of matrices in full single precision: the rounding of TF32 would show in the features."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _ahead(read: Callable[[Any], Decoded], sources: Iterable[Any]) -> Iterator[Future[Decoded]]:
    """Futures of `read(source)` in order, enough of them ahead to keep the decoding threads at work."""
    rest, waiting = iter(sources), deque[Future[Decoded]]()
    try:
        waiting.extend(_decoders().submit(read, source) for source in islice(rest, 2 * cores()))
        while waiting:
            yield waiting.popleft()
            waiting.extend(_decoders().submit(read, source) for source in islice(rest, 1))
    finally:
        for future in waiting:
            future.cancel()


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "decode")
