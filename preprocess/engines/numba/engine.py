"""The numba engine: compiled functions that process sixteen frames at a time within the CPU cache.

The engine processes one clip at a time in the calling thread and keeps its buffers between clips. Its Fourier
transforms (`transform`) take a third to a quarter of the time of `torch.fft.rfft`, because each instruction
processes sixteen frames and the last step computes the power in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import measure_count
from shardwave.preprocess.dsp.filters import banded, frequency_bands, resize
from shardwave.preprocess.dsp.statistics import features
from shardwave.preprocess.engines.base import Engine, EngineOutput, fit_clip
from shardwave.preprocess.engines.numba.measures import tables, zero_crossings
from shardwave.preprocess.engines.numba.render import (
    draw_image,
    draw_lines,
    draw_strip,
    padded,
    resize_rows,
    whole_vectors,
)
from shardwave.preprocess.engines.numba.simd import LANES, aligned
from shardwave.preprocess.engines.numba.spectrum import analyse
from shardwave.preprocess.engines.numba.transform import plan

# bytes of power and lines (8 minutes); a clip that needs more is transformed twice, first for its maximum
ONE_PASS = 1 << 27
FULL_SCALE = 1 << 15  # of int16
NO_FLOATS, NO_SHORTS = np.empty(0, np.float32), np.empty(0, np.int16)
CHUNK = 64  # blocks at a time in the second pass
SMALLEST = 1e-20  # least maximum power for which float32 can represent powers 80 dB below it


class NumbaEngine(Engine):
    """Compute images and features on the CPU with functions compiled by Numba.

    Args:
        config: Parameters of the images and features.
    """

    name = "numba"
    device = "cpu"
    integers = True  # int16 needs half the memory of float32 and no conversion

    def __init__(self, config: SpectrogramConfig) -> None:
        self.config = config
        bands = frequency_bands(config)
        self._plan = plan(config.n_fft, config.hop_length)
        # the same bits as with samples divided by FULL_SCALE
        scaled = self._plan.window / np.float32(FULL_SCALE)
        self._plans = {
            np.dtype(np.float32): self._plan,
            np.dtype(np.int16): self._plan._replace(window=scaled),
        }
        self._bands = whole_vectors(banded(np.eye(1, dtype=np.float32) if bands is None else bands))
        self._band_count = 0 if bands is None else config.image_size
        self._rows = self._band_count or config.bins
        self._along = resize_rows(self._rows, config.image_size)
        self._tiles = padded(config.image_size) // LANES
        self._tables = tables(config) if config.features else None
        hops, mirror = aligned(self._plan.columns * config.hop_length), aligned(LANES * config.hop_length)
        self._scratch = (hops, mirror, aligned(LANES * config.n_fft))
        self._levels = aligned(LANES * (self._rows + LANES))
        self._block = aligned(LANES * max(config.bins, self._rows))
        self._power = self._lines = np.empty(0, np.float32)

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """Compute the images and features of clips, see `Engine.__call__`."""
        size = self.config.image_size
        full, strips = np.empty((0 if self.strips else len(clips), size, size), np.uint8), []
        slices, features = [], []
        for i, clip in enumerate(clips):
            bounds = self.config.slice_bounds(len(clip))
            slices.append(np.empty((0 if self.strips else len(bounds), size, size), np.uint8))
            if self.strips:
                image = np.empty((self.config.frames(len(clip)), size), np.uint8)
                strips.append(image.T)
            else:
                image = full[i]
            numbers = self._clip(fit_clip(clip, self.config), bounds, [image, *slices[-1]])
            if numbers is not None:
                features.append(numbers)
        images = strips if self.strips else full
        return EngineOutput(images, slices, features if self.config.features else None)

    def _clip(
        self, clip: np.ndarray, bounds: list[tuple[int, int]], images: list[np.ndarray]
    ) -> np.ndarray | None:
        """Write the images of the views of a clip; return its features [views, columns] or None.

        With `strips`, the only image is the strip [frames, size].
        """
        config = self.config
        frames = config.frames(len(clip))
        blocks = -(-frames // LANES)
        samples = np.ascontiguousarray(clip, None if clip.dtype == np.int16 else np.float32)
        if len(clip) < config.n_fft:
            samples = np.pad(samples, (0, config.n_fft - len(clip)))
        elif not samples.flags.writeable:  # Numba would compile all functions once more for read-only arrays
            samples = samples.copy()
        views = [(0, frames), *bounds][: len(images)]
        long = blocks * LANES * (self._rows + LANES * self._tiles) * 4 > ONE_PASS
        if not long and self._lines.size < blocks * LANES * LANES * self._tiles:
            self._power, self._lines = (
                aligned(blocks * LANES * self._rows),
                aligned(blocks * LANES * LANES * self._tiles),
            )
        measures = aligned(blocks * measure_count(config) * LANES) if config.features else None
        power = self._block if long else self._power
        peak = self._analyse(samples, 0, blocks, frames, power, measures)
        loudest = 1.0 if SMALLEST <= peak < np.inf else float(np.abs(samples).max())
        quiet = samples
        # powers are outside the range of float32: repeat with a maximum near 1
        if loudest != 1.0 and loudest > 0:
            quiet = np.ldexp(samples, -int(np.frexp(loudest)[1]))
            peak = self._analyse(quiet, 0, blocks, frames, power, None)
        if loudest == 0:
            for image in images:
                image[:] = 0
        elif long:
            self._draw_long(quiet, blocks, frames, peak, views, images)
        else:
            draw_lines(self._power, blocks, self._scale(peak), self._along, self._levels, self._lines)
            if self.strips:
                draw_strip(self._lines, blocks, frames, config.image_size, images[0].reshape(-1))
            else:
                for (start, stop), image in zip(views, images, strict=True):
                    self._draw(blocks, start, stop, image)
        return None if measures is None else self._features(samples, measures, frames, bounds)

    def _analyse(
        self,
        samples: np.ndarray,
        first: int,
        blocks: int,
        frames: int,
        out: np.ndarray,
        measures: np.ndarray | None,
    ) -> float:
        """Compute the spectra of blocks [first, first + blocks), and the measures if `measures` is given.

        `out` receives the powers [blocks, rows, 16]; if it is `self._block`, each block overwrites the one
        before. Returns the largest power.
        """
        step = 0 if out is self._block else self._rows * LANES
        power, power_step = (self._block, 0) if self._band_count else (out, step)
        banded = self._levels if out is self._block else out
        clip = (samples, NO_SHORTS) if samples.dtype == np.float32 else (NO_FLOATS, samples)
        peak: float = analyse(
            clip, first, blocks, frames, self._plans[samples.dtype], self._scratch, power, power_step,
            self._bands, self._band_count, banded, step, None if measures is None else self._tables, measures,
        )  # fmt: skip
        return peak

    def _scale(self, peak: float) -> np.ndarray:
        """Return factor and offset from log2 of a power to a level, 255 at the peak and 0 at the floor."""
        factor = 10 * np.log10(2) * 255 / -self.config.floor_db
        return np.array([factor, 255 - factor * np.log2(peak)], np.float32)

    def _draw(self, blocks: int, start: int, stop: int, image: np.ndarray) -> None:
        size = len(image)
        whole = image if size % LANES == 0 else np.empty((LANES * self._tiles, LANES * self._tiles), np.uint8)
        draw_image(
            self._lines, blocks, self._tiles, start, resize_rows(stop - start, size), whole.reshape(-1), 0
        )
        if whole is not image:
            image[:] = whole[:size, :size]

    def _draw_long(
        self,
        samples: np.ndarray,
        blocks: int,
        frames: int,
        peak: float,
        views: list[tuple[int, int]],
        images: list[np.ndarray],
    ) -> None:
        """Compute the spectra of a long clip again, CHUNK blocks at a time, and add them to its views."""
        power, lines = aligned(CHUNK * LANES * self._rows), aligned(self._tiles * CHUNK * LANES * LANES)
        size = self.config.image_size
        sums: dict[int, np.ndarray] = {}  # levels so far of incomplete views: float32 [time, frequency]
        for first in range(0, blocks, CHUNK):
            count = min(CHUNK, blocks - first)
            self._analyse(samples, first, count, frames, power, None)
            draw_lines(power, count, self._scale(peak), self._along, self._levels, lines)
            part = lines[: self._tiles * count * LANES * LANES].reshape(self._tiles, -1, LANES)
            levels = part.transpose(1, 0, 2).reshape(count * LANES, -1)[:, :size]
            if self.strips:
                rows = images[0][first * LANES : (first + count) * LANES]
                rows[:] = (levels[: len(rows)] + 0.5).astype(np.uint8)
                continue
            for i, (start, stop) in enumerate(views):
                low, high = max(first * LANES, start), min((first + count) * LANES, stop)
                if low < high:
                    columns, weights = resize(stop - start, size).part(low - start, high - start)
                    sums.setdefault(i, np.zeros((size, size), np.float32))[columns] += (
                        weights @ levels[low - first * LANES : high - first * LANES]
                    )
                if low < high == stop:
                    images[i][:] = (sums.pop(i).T + 0.5).astype(np.uint8)

    def _features(
        self, samples: np.ndarray, measures: np.ndarray, frames: int, bounds: list[tuple[int, int]]
    ) -> np.ndarray:
        rates = np.empty(frames, np.float32)
        zero_crossings(samples, self.config.n_fft, self.config.hop_length, rates)
        count = measure_count(self.config)
        joined = np.ascontiguousarray(measures.reshape(-1, count, LANES).transpose(1, 0, 2)).reshape(
            count, -1
        )[:, :frames]
        return np.asarray(features(joined, rates, bounds, self.config))
