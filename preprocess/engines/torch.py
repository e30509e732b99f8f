"""The torch engine: FFT, power, logarithm and resize matrices in plain PyTorch, on the CPU or a GPU.

Each clip is computed alone, so that its images do not depend on the other clips. A clip longer than PART
frames is transformed twice, part by part: first for its maximum, then for its images. Samples of 16 bits stay
16 bits wide until their part is converted to floats and mirrored at the ends of the clip. The size of
temporary tensors does not grow with the clip, except that of features: some numbers per frame.

On CUDA, a pool of CPU threads, which all engines of a process share, decodes files into pinned memory.
Samples and images are copied on a CUDA stream of the engine, for several clips at a time, so that decoding,
copying, computing and writing overlap.

Nothing here is specific to CUDA but streams and pinned memory: device `mps` runs the same operations, but is
not tested.
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
from shardwave.preprocess.dsp.features import measure_count
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

IN_FLIGHT = 8  # clips that are on the device at a time
PART = 1 << 13  # frames whose powers are in memory at a time: 3 minutes, 34 MB
# samples of frames in one FFT call; on the CPU they fit in the cache
CHUNK = {"cpu": 1 << 17, "gpu": 1 << 24}
# rows of a banded matrix per product: few rows skip more zeros, many need fewer calls
ROWS = {"cpu": 64, "gpu": 512}
PIXELS = 1 << 24  # pixels of the views that one product computes
PIECE = 1 << 22  # samples that are decoded at a time
SILENT = -1e4  # log2 of the maximum power of a silent clip

Block = tuple[slice, slice, torch.Tensor]


class TorchEngine(Engine):
    """Compute images and features with PyTorch.

    Args:
        config: Parameters of the images and features.
        device: `cpu` or `cuda` (the current CUDA device of this thread).

    Raises:
        UsageError: The device is `cuda` and PyTorch sees no CUDA device.
    """

    name = "torch"
    integers = True

    def __init__(self, config: SpectrogramConfig, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError(NO_CUDA)
        self.config, self.device = config, device
        self._kind = "cpu" if device == "cpu" else "gpu"
        self._stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        bands = frequency_bands(config)
        self._bands = None if bands is None else self._blocks([banded(bands)])
        self._along = self._blocks(
            [resize(config.bins if bands is None else config.image_size, config.image_size)]
        )
        self._across = functools.lru_cache(maxsize=32)(self._resizing)
        self._window = torch.hann_window(config.n_fft, device=device)
        if device == "cuda":
            torch.cuda.current_stream().synchronize()  # the engine's own stream must find the tables complete

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Compute the images and features of clips, see `Engine.__call__`."""
        size = self.config.image_size
        outputs = [
            finish() for finish in [self._start(Decoded(clip, 0, 1, 0.0, None, None)) for clip in clips]
        ]
        images = [output.full for output in outputs]
        full = images if self.strips else np.array(images, np.uint8).reshape(-1, size, size)
        numbers = [output.features for output in outputs if output.features is not None]
        return EngineOutput(
            full, [output.slices for output in outputs], numbers if self.config.features else None
        )

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """Decode files and compute their images and features, see `Engine.stream`; on CUDA, clips overlap."""
        if self._stream is None:
            return super().stream(sources, summed, limits)
        return enumerate(self.pipelined(sources, summed, limits))

    def pipelined(
        self, sources: Iterable[Path | Segment], summed: bool, limits: Limits
    ) -> Iterator[ClipOutput | BadAudio]:
        """Decode files in threads and compute their images on the device, up to IN_FLIGHT clips at a time.

        Args:
            sources: Files and segments.
            summed: Compute the CRC-32 of each file too, if decoding reads all its bytes.
            limits: Limits beyond which a file is refused.

        Yields:
            The output of each source in order; a `BadAudio` for a file that cannot be used.
        """
        read = functools.partial(
            decode_source,
            sample_rate=self.config.sample_rate,
            piece=PIECE,
            summed=summed,
            integers=True,
            limits=limits,
            allocate=np.empty if self._stream is None else _pinned,
        )
        pending = deque[Callable[[], ClipOutput | BadAudio]]()
        for future in _ahead(read, sources):
            error = future.exception()
            failed = (
                functools.partial(lambda bad_audio: bad_audio, error) if isinstance(error, BadAudio) else None
            )
            pending.append(failed or self._start(future.result()))
            if len(pending) == IN_FLIGHT:
                yield pending.popleft()()
        while pending:
            yield pending.popleft()()

    def _start(self, decoded: Decoded) -> Callable[[], ClipOutput]:
        """Start the computation of a clip, asynchronously on CUDA.

        Returns a function that waits for the output.
        """
        samples, exponent = conditioned(fit_clip(decoded.samples, self.config), self.config.n_fft)
        bounds = self.config.slice_bounds(len(decoded.samples))
        own = contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with torch.inference_mode(), own, full_precision():
            tensors = self.compute(self._moved(samples), exponent, bounds)
            tensors = [tensor.cpu() if self._stream is None else _to_host(tensor) for tensor in tensors]
            done = None if self._stream is None else self._stream.record_event()

        def finish() -> ClipOutput:
            if done is not None:
                done.synchronize()
            images, numbers = tensors[0].numpy(), tensors[1].numpy() if self.config.features else None
            full = images[0].T if self.strips else images[0]
            return ClipOutput(full, images[1:], numbers, len(decoded.samples), *decoded[1:])

        return finish

    def compute(
        self, samples: torch.Tensor, exponent: int, bounds: list[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Compute images uint8 [1 + slices, size, size] and, if configured, features [1 + slices, columns].

        With `strips`, the images are one strip [1, frames, size] and no slices [0, frames, size].
        `samples` [time], float32 or int16, are divided by 2 ** exponent; `bounds` are the slices' frames.
        """
        config = self.config
        frames = config.frames(len(samples))
        parts = [(start, min(start + PART, frames)) for start in range(0, frames, PART)]
        measures = torch.empty(measure_count(config), frames, device=self.device) if config.features else None
        peak = torch.full((), SILENT, device=self.device)
        for start, stop in parts:
            levels = self._logarithms(
                self._windows(samples, start, stop),
                4.0**exponent,
                None if measures is None else measures[:, start:stop],
            )
            peak = torch.maximum(peak, levels.amax())
        count, width = (1, frames) if self.strips else (1 + len(bounds), config.image_size)
        images = torch.zeros(count, width, config.image_size, dtype=torch.uint8, device=self.device)
        sums: dict[int, torch.Tensor] = {}
        for start, stop in parts:
            if len(parts) > 1:
                levels = self._logarithms(self._windows(samples, start, stop), 0, None)
            lines = self._lines(levels, peak)
            if self.strips:
                images[0, start:stop] = lines
            else:
                self._draw(lines, start, [(0, frames), *bounds], images, sums)
        if measures is None:
            return [images]
        rates = [zero_crossing_rate(samples, 2.0**exponent, config, start, stop) for start, stop in parts]
        return [images, features(measures, torch.cat(rates), bounds, config)]

    def _windows(self, samples: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return frames [start, stop) of a clip that is mirrored at its ends, float32 [frames, n_fft]."""
        n_fft, hop = self.config.n_fft, self.config.hop_length
        first, last = start * hop - n_fft // 2, (stop - 1) * hop + (n_fft + 1) // 2
        before, after = max(0, -first), max(0, last - len(samples))
        part = samples[max(0, first) : last]
        if before or after:
            left, right = samples[1 : 1 + before].flip(0), samples[-1 - after : len(samples) - 1].flip(0)
            part = torch.cat([left, part, right])
        return part.float().unfold(0, n_fft, hop)

    def _logarithms(self, windows: torch.Tensor, scale: float, measures: torch.Tensor | None) -> torch.Tensor:
        """Compute log2 of the powers of bins or bands, [frames, rows], of frames [frames, n_fft].

        If `measures` [measures, frames] is a tensor, the measures of the powers times `scale` are written
        to it.
        """
        config = self.config
        levels = torch.empty(
            len(windows), config.bins if self._bands is None else config.image_size, device=self.device
        )
        chunk = max(1, CHUNK[self._kind] // config.n_fft)
        for start in range(0, len(windows), chunk):
            frames, out = windows[start : start + chunk], levels[start : start + chunk]
            spectrum = torch.fft.rfft(frames * self._window)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            if measures is not None:
                measures[:, start : start + len(out)] = measure(power * scale, config).T
            torch.log2(
                power if self._bands is None else product(power, self._bands, config.image_size), out=out
            )
        return levels

    def _lines(self, levels: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Convert log2 of powers [frames, rows] to levels [frames, size].

        Levels range from 0.5 at the floor to 255.5 at the peak.
        """
        floor = self.config.floor_db / (10 * np.log10(2))  # in powers of two
        lines = product(torch.maximum(levels, peak + floor), self._along, self.config.image_size)
        return torch.add(255.5 + peak * (255 / floor), lines, alpha=-255 / floor)  # one pass over the lines

    def _draw(
        self,
        lines: torch.Tensor,
        first: int,
        views: list[tuple[int, int]],
        images: torch.Tensor,
        sums: dict[int, torch.Tensor],
    ) -> None:
        """Draw the part of the views that the frames from `first` on show.

        Args:
            lines: Levels [frames, size] of consecutive frames.
            first: Number of the first of these frames in the clip.
            views: Frames [start, stop) of each view.
            images: Pixels of the views, uint8 [views, size, size], which are written.
            sums: Levels so far of incomplete views, by their number; updated.
        """
        size, last = self.config.image_size, first + len(lines)
        inside: list[int] = []
        for number, (start, stop) in enumerate(views):
            low, high = max(first, start), min(last, stop)
            if first <= start and stop <= last:
                inside.append(number)
            elif low < high:
                columns, weights = resize(stop - start, size).part(low - start, high - start)
                total = sums.setdefault(number, torch.zeros(size, size, device=self.device))
                total[:, columns] += lines[low - first : high - first].T @ self._moved(weights.T)
                if high == stop:
                    images[number] = sums.pop(number)
        together = max(1, PIXELS // size**2)
        groups = [inside[:1]] if inside[:1] == [0] else []  # the full view alone
        rest = inside[len(groups) :]
        for numbers in (*groups, *(rest[i : i + together] for i in range(0, len(rest), together))):
            group = slice(numbers[0], numbers[-1] + 1)
            frames, blocks = self._across(tuple(views[group]), first)
            product(lines[frames].mT, blocks, size, images[group])

    def _resizing(
        self, views: Sequence[tuple[int, int]], first: int
    ) -> tuple[torch.Tensor | slice, list[Block]]:
        """Return the frames that views show, and the matrices that resize them.

        Args:
            views: Frames [start, stop) of each view.
            first: Frame of the clip from which the result counts frames.

        Returns:
            Index of the frames, [views, frames]; a view shorter than the longest one is followed by others.
            Blocks of the matrices [views, size, frames], with weight 0 for frames that a view does not show.
        """
        length = max(stop - start for start, stop in views)
        matrices = {
            frames: resize(frames, self.config.image_size)
            for frames in {stop - start for start, stop in views}
        }
        if len(views) == 1:
            return slice(views[0][0] - first, views[0][1] - first), self._blocks([matrices[length]])
        starts = np.array([start for start, _ in views])
        index = np.minimum(starts[:, None] + np.arange(length), max(stop for _, stop in views) - 1) - first
        alike = (
            list(matrices.values())
            if len(matrices) == 1
            else [matrices[stop - start] for start, stop in views]
        )
        return self._moved(index), self._blocks(alike)

    def _blocks(self, matrices: Sequence[BandedMatrix]) -> list[Block]:
        """Return matrices of equal height in blocks.

        Each block is rows, columns with non-zero weights, and weights [columns, rows], or [matrices, columns,
        rows] for several matrices.
        """
        lows = np.stack([matrix.first for matrix in matrices])
        ends = np.stack([matrix.first + matrix.counts for matrix in matrices])
        dense = np.stack([matrix.dense(int(ends.max())) for matrix in matrices]).swapaxes(1, 2)
        dense, blocks = dense[0] if len(matrices) == 1 else dense, []
        for start in range(0, lows.shape[1], ROWS[self._kind]):
            rows = slice(start, start + ROWS[self._kind])
            columns = slice(int(lows[:, rows].min()), int(ends[:, rows].max()))
            blocks.append((rows, columns, self._moved(dense[..., columns, rows])))
        return blocks

    def _moved(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array to the device, to a GPU through pinned memory so that the CPU does not wait."""
        host = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        if self._stream is None:
            return host.to(self.device)
        return host.pin_memory().to(self.device, non_blocking=True)


def product(
    values: torch.Tensor, blocks: list[Block], size: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply values by a banded matrix, or by one matrix each.

    Args:
        values: [..., columns].
        blocks: Blocks of the matrix [size, columns]: rows, columns, weights [..., columns, rows].
        size: Number of rows of the matrix.
        out: Tensor of any type for the result; None: a new one, float32.

    Returns:
        [..., size].
    """
    if out is None and len(blocks) == 1:  # one call less
        _, columns, weights = blocks[0]
        return values[..., columns] @ weights
    result = torch.empty(*values.shape[:-1], size, device=values.device) if out is None else out
    for rows, columns, weights in blocks:
        result[..., rows] = values[..., columns] @ weights
    return result


def _pinned(length: int, dtype: Any) -> np.ndarray:
    """Return an array in pinned memory, which PyTorch reuses when the copies that read it have ended."""
    kind = torch.int16 if dtype == np.int16 else torch.float32
    return torch.empty(length, dtype=kind, pin_memory=True).numpy()


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Start the copy of a tensor into pinned memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute matrix products in full single precision, because TF32 changes the features."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _ahead(read: Callable[[Any], Decoded], sources: Iterable[Any]) -> Iterator[Future[Decoded]]:
    """Yield futures of `read(source)` in order, with enough submitted ahead to keep all threads busy."""
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
