"""Per-frame measures that the features are made of, compiled: sixteen frames at once, from their power spectra in cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from preprocess.config import SpectrogramConfig
from preprocess.filters import chroma_bands, contrast_bands, mel_bands, sparse
from preprocess.features import CHROMA, MELS, ROLLOFF
from preprocess.render import Rows, rows, weigh
from preprocess.simd import LANES, accumulate, compiled, loop, traced

TINY = float(np.finfo(np.float32).tiny)


class Tables(NamedTuple):
    """What `measure_block` looks up."""

    mel: Rows
    chroma: np.ndarray  # float32 [12 * bins]: [chroma, bin]
    frequency: np.ndarray  # float32 [bins], Hz
    low: np.ndarray  # int64 [contrast bands]: first bin
    high: np.ndarray  # int64 [contrast bands]: one past the last bin
    extremes: np.ndarray  # int64 [contrast bands]: how many bins make a peak or a valley


def tables(config: SpectrogramConfig) -> Tables:
    """The tables for a configuration."""
    low, high, extremes = contrast_bands(config.sample_rate, config.n_fft)
    frequency = np.arange(config.bins) * (config.sample_rate / config.n_fft)
    mel = rows(sparse(mel_bands(config.sample_rate, config.n_fft, MELS)))
    chroma = chroma_bands(config.sample_rate, config.n_fft)
    return Tables(mel, chroma.reshape(-1), frequency.astype(np.float32), low, high, extremes)


@traced
def _chroma(power, at, chroma, bins, target, to):
    """The twelve pitch classes' power."""
    totals = loop(
        bins,
        [0.0] * CHROMA,
        lambda i, *state: [s + power.load(at + i * LANES) * chroma.broadcast(bins * c + i) for c, s in enumerate(state)],
    )
    for c, total in enumerate(totals):
        target.store(to + c * LANES, total)


@traced
def _shape(power, at, frequency, bins, magnitudes, target, centroid, bandwidth, rolloff):
    """Magnitudes, and from them centroid (Hz), bandwidth (Hz) and the index of the roll-off bin."""

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


@traced
def _keep_extremes(magnitudes, at, kept, count):
    """Insert sixteen frames' magnitudes into the sorted lists of the `count` largest (kept[0 : …]) and the `count` smallest (after them)."""

    def insert(i, high, low):
        top, bottom = kept.load(i * LANES), kept.load((count + i) * LANES)
        kept.store(i * LANES, top.maximum(high))
        kept.store((count + i) * LANES, bottom.minimum(low))
        return [top.minimum(high), bottom.maximum(low)]

    loop(count, [magnitudes.load(at), magnitudes.load(at)], insert)


@traced
def _mean(kept, at, count, inverse, target, to):
    target.store(to, accumulate(count, lambda i: kept.load(at + i * LANES)) * inverse.broadcast(0))


@compiled
def measure_block(power, at, tables, magnitudes, measures):
    """Power [bins, 16] from power[at] → measures [rows, 16], in the order of `features.measure_rows`; `magnitudes` is scratch."""
    bins = tables.frequency.size
    mels = 128
    for row in range(mels):
        first = at + tables.mel.first[row] * 16
        weigh(power, first, tables.mel.weights, tables.mel.start[row], tables.mel.count[row], measures, row * 16)
    _chroma(power, at, tables.chroma, bins, measures, mels * 16)
    row = mels + 12
    _shape(power, at, tables.frequency, bins, magnitudes, measures, row * 16, (row + 1) * 16, (row + 2) * 16)
    row += 3
    kept = np.empty(tables.extremes.max() * 32, np.float32)
    inverse = np.empty(1, np.float32)
    for band in range(tables.low.size):
        count = tables.extremes[band]
        kept[: count * 16] = 0
        kept[count * 16 : count * 32] = np.inf
        for k in range(tables.low[band], tables.high[band]):
            _keep_extremes(magnitudes, k * 16, kept, count)
        inverse[0] = 1 / count
        _mean(kept, 0, count, inverse, measures, (row + band) * 16)
        _mean(kept, count * 16, count, inverse, measures, (row + tables.low.size + band) * 16)


@compiled
def zero_crossings(clip, n_fft, hop, rates):
    """Fraction of sign changes in each centred frame of a clip whose edge samples go on beyond its ends; |sample| ≤ 1e-10 counts as positive."""
    changes = np.empty(clip.size, np.int32)  # up to and with each sample
    changes[0] = 0
    total = 0
    for i in range(1, clip.size):
        total += (clip[i] < -1e-10) != (clip[i - 1] < -1e-10)
        changes[i] = total
    for frame in range(rates.size):
        start = frame * hop - n_fft // 2
        first, last = min(max(start, 0), clip.size - 1), min(start + n_fft - 1, clip.size - 1)
        rates[frame] = (changes[last] - changes[first]) / n_fft
