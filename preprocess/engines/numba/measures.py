"""Compiled functions for the per-frame measures of the features, sixteen frames at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import CHROMA, MELS, ROLLOFF
from shardwave.preprocess.dsp.filters import BandedMatrix, banded, chroma_bands, contrast_bands, mel_bands
from shardwave.preprocess.engines.numba.numba_cache import compiled, inlined
from shardwave.preprocess.engines.numba.render import weigh, whole_vectors
from shardwave.preprocess.engines.numba.simd import LANES, accumulate, aligned, loop, traced

TINY = float(np.finfo(np.float32).tiny)


class Tables(NamedTuple):
    """Tables and scratch arrays of `measure_block`."""

    mel: BandedMatrix
    chroma: np.ndarray  # float32 [bins * 12]: [bin, chroma]
    frequency: np.ndarray  # float32 [bins], Hz
    low: np.ndarray  # int64 [contrast bands]: first bin
    high: np.ndarray  # int64 [contrast bands]: one past the last bin
    extremes: np.ndarray  # int64 [contrast bands]: number of bins of a peak or a valley
    inverse: np.ndarray  # float32 [contrast bands]: 1 / extremes
    kept: np.ndarray  # float32, scratch: largest and smallest magnitudes
    # float32, scratch: magnitudes that are not among the largest, and not among the smallest
    rest: np.ndarray


def tables(config: SpectrogramConfig) -> Tables:
    """Return the tables for a configuration."""
    low, high, extremes = contrast_bands(config.sample_rate, config.n_fft)
    frequency = np.arange(config.bins) * (config.sample_rate / config.n_fft)
    mel = whole_vectors(banded(mel_bands(config.sample_rate, config.n_fft, MELS)))
    chroma = chroma_bands(config.sample_rate, config.n_fft)
    inverse, kept = (1 / extremes).astype(np.float32), aligned(2 * MOST * LANES)
    rest = aligned(2 * int((high - low).max()) * LANES)
    return Tables(
        mel,
        chroma.T.reshape(-1).copy(),
        frequency.astype(np.float32),
        low,
        high,
        extremes,
        inverse,
        kept,
        rest,
    )


@traced
def _chroma(power, at, chroma, bins, target, to):
    """Compute the power of the twelve pitch classes."""
    totals = loop(
        bins,
        [0.0] * CHROMA,
        lambda i, *state: [
            s + power.load(at + i * LANES) * chroma.broadcast(i * CHROMA + c) for c, s in enumerate(state)
        ],
    )
    for c, total in enumerate(totals):
        target.store(to + c * LANES, total)


@traced
def _shape(power, at, frequency, bins, magnitudes, target, centroid, bandwidth, rolloff):
    """Compute magnitudes, centroid (Hz), bandwidth (Hz) and the index of the roll-off bin."""

    def moments(i, total, moment):
        magnitude = power.load(at + i * LANES).sqrt()
        magnitudes.store(i * LANES, magnitude)
        return [total + magnitude, moment + magnitude * frequency.broadcast(i)]

    total, moment = loop(bins, [0.0, 0.0], moments)
    norm = total.maximum(TINY)
    centre = moment / norm
    threshold = total * ROLLOFF

    def spread(i, square, running, below):
        magnitude = magnitudes.load(i * LANES)
        distance = centre - frequency.broadcast(i)
        running = running + magnitude
        return [square + magnitude * distance * distance, running, below + running.below(threshold)]

    square, _, below = loop(bins, [0.0, 0.0, 0.0], spread)
    target.store(centroid, centre)
    target.store(bandwidth, (square / norm).sqrt())
    target.store(rolloff, below)


def _extremes(size: int, more: bool = False) -> Any:
    """Return a traced function that finds the extremes of a band.

    It writes the `size` largest of `bins` values from `peaks` and the `size` smallest of `bins` values from
    `valleys` to `kept`, sorted. They are in registers until the end. With `more` it writes the other values
    to `rest`, which may be the same memory as the input.
    """

    def extremes(peaks, peak_at, valleys, valley_at, bins, kept, rest):
        def insert(i, *state):
            high, low = peaks.load(peak_at + i * LANES), valleys.load(valley_at + i * LANES)
            tops, bottoms = [], []
            for top, bottom in zip(state[:size], state[size:], strict=True):
                tops.append(top.maximum(high))
                bottoms.append(bottom.minimum(low))
                high, low = top.minimum(high), bottom.maximum(low)
            if more:
                rest.store(i * LANES, high)
                rest.store((bins + i) * LANES, low)
            return [*tops, *bottoms]

        values = loop(bins, [0.0] * size + [float("inf")] * size, insert)
        for i, value in enumerate(values):
            kept.store((i if i < size else MOST + i - size) * LANES, value)

    return traced(extremes)


MOST = 9  # extremes found in one pass
_extremes3, _extremes6, _extremes9, _extremes_of_many = (
    _extremes(3),
    _extremes(6),
    _extremes(MOST),
    _extremes(MOST, more=True),
)


@traced
def _begin_mean(target, to):
    target.fill(to, 0.0)


@traced
def _add_to_mean(kept, at, count, inverse, band, target, to):
    target.store(
        to, accumulate(count, lambda i: kept.load(at + i * LANES)) * inverse.broadcast(band) + target.load(to)
    )


@inlined
def _contrast(magnitudes, band, tables, measures, peak, valley):
    """Compute the means of the largest and of the smallest magnitudes of a contrast band."""
    first, bins, rest, kept = (
        tables.low[band] * 16,
        tables.high[band] - tables.low[band],
        tables.rest,
        tables.kept,
    )
    _begin_mean(measures, peak)
    _begin_mean(measures, valley)
    left, source, peak_at, valley_at = tables.extremes[band], magnitudes, first, first
    while left > 0:
        if left > MOST:
            _extremes_of_many(source, peak_at, source, valley_at, bins, kept, rest)
        elif left > 6:
            _extremes9(source, peak_at, source, valley_at, bins, kept, rest)
        elif left > 3:
            _extremes6(source, peak_at, source, valley_at, bins, kept, rest)
        else:
            _extremes3(source, peak_at, source, valley_at, bins, kept, rest)
        count = min(left, MOST)
        _add_to_mean(kept, 0, count, tables.inverse, band, measures, peak)
        _add_to_mean(kept, MOST * 16, count, tables.inverse, band, measures, valley)
        left, source, peak_at, valley_at = left - count, rest, 0, bins * 16


@inlined
def measure_block(power, at, tables, magnitudes, measures, to):
    """Compute the measures of sixteen frames.

    Args:
        power: Array with the powers [bins, 16] from index `at` on.
        at: Index of the first power.
        tables: Tables of the configuration.
        magnitudes: Scratch of [bins, 16] floats.
        measures: Receives [rows, 16] from index `to` on, in the order of `features.measure_count`.
        to: Index of the first measure.
    """
    bins, bands = tables.frequency.size, tables.low.size
    for row in range(MELS):
        first = at + tables.mel.first[row] * 16
        weigh(
            power,
            first,
            tables.mel.weights,
            tables.mel.starts[row],
            tables.mel.counts[row],
            measures,
            to + row * 16,
        )
    to += MELS * 16
    _chroma(power, at, tables.chroma, bins, measures, to)
    to += CHROMA * 16
    _shape(power, at, tables.frequency, bins, magnitudes, measures, to, to + 16, to + 32)
    to += 48
    for band in range(bands):
        _contrast(magnitudes, band, tables, measures, to + band * 16, to + (bands + band) * 16)


@inlined
def _changes(clip, start, stop):
    """Count the sign changes from sample i - 1 to sample i, for i in [start, stop)."""
    before, after = clip[start - 1 : stop - 1], clip[start:stop]
    negative = np.float32(-1e-10)
    total = np.int32(0)
    for i in range(after.size):
        total += np.int32((after[i] < negative) != (before[i] < negative))
    return total


@compiled
def zero_crossings(clip, n_fft, hop, rates):
    """Compute the fraction of sign changes in each centred frame of a clip.

    The edge samples are repeated beyond the ends of the clip. A sample of at least -1e-10 counts as positive.

    Args:
        clip: Samples [time].
        n_fft: Samples of a frame.
        hop: Samples between frames.
        rates: float32 [frames], receives the fractions.
    """
    low = high = 1  # `inside` counts the changes into the samples [low, high)
    inside = 0
    for frame in range(rates.size):
        start = frame * hop - n_fft // 2
        first, last = min(max(start + 1, 1), clip.size), min(max(start + n_fft, 1), clip.size)
        inside += _changes(clip, high, last) - _changes(clip, low, first)
        low, high = first, last
        rates[frame] = inside / n_fft
