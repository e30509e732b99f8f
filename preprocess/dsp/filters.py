"""Weight matrices in NumPy: triangular resize, log and mel frequency bands, chroma and contrast bands."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import CONTRAST_LOWEST, CONTRAST_QUANTILE, contrast_count

LOG_LOWEST = 20.0  # Hz, lower edge of the first log band


class BandedMatrix(NamedTuple):
    """A sparse weight matrix with one range of non-zero columns per row.

    Row i has weights[starts[i] : starts[i] + counts[i]] at columns first[i], first[i] + 1, ...
    """

    first: np.ndarray  # int64 [rows]
    counts: np.ndarray  # int64 [rows], at least 1
    starts: np.ndarray  # int64 [rows]
    weights: np.ndarray  # float32

    def part(self, start: int, stop: int) -> tuple[slice, np.ndarray]:
        """Return the part of the matrix in some columns.

        Args:
            start: First column.
            stop: Last column + 1.

        Returns:
            The rows that have weights in these columns, and the weights, float32 [rows, stop - start].
        """
        touched = np.flatnonzero((self.first < stop) & (self.first + self.counts > start))
        rows = slice(int(touched[0]), int(touched[-1]) + 1)
        counts, begin = self.counts[rows], self.starts[rows.start]
        weights = self.weights[begin : begin + counts.sum()]
        row = np.repeat(np.arange(len(counts)), counts)
        column = (
            np.arange(len(weights)) + np.repeat(self.first[rows] - self.starts[rows], counts) + begin - start
        )
        inside = (column >= 0) & (column < stop - start)
        matrix = np.zeros((len(counts), stop - start), np.float32)
        matrix[row[inside], column[inside]] = weights[inside]
        return rows, matrix

    def dense(self, columns: int) -> np.ndarray:
        """Return the matrix as a dense array, float32 [rows, columns]."""
        matrix = np.zeros((len(self.first), columns), np.float32)
        rows, weights = self.part(0, columns)
        matrix[rows] = weights
        return matrix


def banded(matrix: np.ndarray, first: np.ndarray | int = 0) -> BandedMatrix:
    """Convert a dense matrix to a banded one, without the leading and trailing zeros of each row.

    Args:
        matrix: Weights [rows, columns].
        first: Column of the result for the first column of `matrix`, for all rows or int64 [rows].
    """
    used = matrix != 0
    lead = np.where(used.any(axis=1), used.argmax(axis=1), 0)
    end = np.where(used.any(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1), 1)
    column = np.arange(used.shape[1])
    inside = (column >= lead[:, None]) & (column < end[:, None])
    counts = end - lead
    return BandedMatrix(first + lead, counts, np.cumsum(counts) - counts, matrix[inside].astype(np.float32))


@functools.lru_cache(maxsize=256)
def resize(size_in: int, size_out: int) -> BandedMatrix:
    """Return the matrix of an antialiased bilinear resize of one axis.

    The weights are a triangle filter with half-pixel centres. Weights beyond the edge are added to the edge
    pixel. The half width of the filter is one input pixel for enlarging and `size_in / size_out` for
    reducing, as in DALI's triangular filter with antialiasing.

    Args:
        size_in: Pixels before resizing.
        size_out: Pixels after resizing.

    Returns:
        Matrix of `size_out` rows and `size_in` columns.
    """
    scale = size_in / size_out
    radius = max(scale, 1.0)
    centre = (np.arange(size_out) + 0.5) * scale - 0.5
    start = np.ceil(centre - radius).astype(np.int64)
    columns = start[:, None] + np.arange(int(np.ceil(2 * radius)) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(columns - centre[:, None]) / radius)
    weights /= weights.sum(axis=1, keepdims=True)
    columns = np.clip(columns, 0, size_in - 1)
    first = np.minimum(columns[:, 0], max(0, size_in - columns.shape[1]))
    folded = np.zeros((size_out, min(columns.shape[1], size_in)))
    np.add.at(folded, (np.arange(size_out)[:, None], columns - first[:, None]), weights)
    return banded(folded.astype(np.float32), first)


def resize_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Return the matrix of `resize` as a dense array, float32 [size_out, size_in]."""
    return resize(size_in, size_out).dense(size_in)


def frequency_bands(config: SpectrogramConfig) -> np.ndarray | None:
    """Return the matrix that converts power [bins, time] to the frequency scale of `config`.

    Returns:
        float32 [image_size, bins]; None for `linear`.
    """
    if config.frequency_scale == "log":
        return log_bands(config.sample_rate, config.n_fft, config.image_size)
    if config.frequency_scale == "mel":
        return mel_bands(config.sample_rate, config.n_fft, config.image_size)
    return None


@functools.lru_cache(maxsize=8)
def log_bands(sample_rate: int, n_fft: int, count: int) -> np.ndarray:
    """Return triangular bands that are evenly spaced in log frequency, from 20 Hz to Nyquist.

    Each side of a band is at least one bin wide. The weights of a band sum to 1, so that a band is the mean
    power around its centre.

    Args:
        sample_rate: Sample rate in Hz.
        n_fft: Samples of an STFT frame.
        count: Number of bands.

    Returns:
        float32 [count, bins].
    """
    nyquist = sample_rate / 2
    edges = np.geomspace(LOG_LOWEST, nyquist, count + 2)
    width = sample_rate / n_fft
    centre = edges[1:-1]
    rise = np.maximum(centre - edges[:-2], width)
    fall = np.maximum(edges[2:] - centre, width)
    offset = np.arange(n_fft // 2 + 1) * width - centre[:, None]
    weights = np.maximum(0.0, 1.0 - np.where(offset < 0, -offset / rise[:, None], offset / fall[:, None]))
    bands: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    bands.setflags(write=False)
    return bands


@functools.lru_cache(maxsize=8)
def mel_bands(sample_rate: int, n_fft: int, count: int) -> np.ndarray:
    """Return Slaney's area-normalised mel bands up to Nyquist, with the defaults of `librosa.filters.mel`.

    A band that is narrower than the distance of two bins may contain no bin. Its power is 0, which is the
    floor of the image.

    Args:
        sample_rate: Sample rate in Hz.
        n_fft: Samples of an STFT frame.
        count: Number of bands.

    Returns:
        float32 [count, bins].
    """
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(np.array(sample_rate / 2)), count + 2))
    frequency = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    distance = edges[:, None] - frequency
    width = np.diff(edges)[:, None]
    weights = np.maximum(0.0, np.minimum(-distance[:-2] / width[:-1], distance[2:] / width[1:]))
    bands: np.ndarray = (weights * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    bands.setflags(write=False)
    return bands


_MEL_LINEAR = 200.0 / 3  # Hz per mel below 1 kHz
_MEL_LOG = np.log(6.4) / 27.0  # nepers per mel above


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Convert Hz to mel on Slaney's scale (Auditory Toolbox, 1998), linear below 1 kHz, else logarithmic."""
    return np.where(hz < 1000.0, hz / _MEL_LINEAR, 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) / _MEL_LOG)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Convert mel to Hz, the inverse of `hz_to_mel`."""
    return np.where(mel < 15.0, mel * _MEL_LINEAR, 1000.0 * np.exp((mel - 15.0) * _MEL_LOG))


@functools.lru_cache(maxsize=8)
def chroma_bands(sample_rate: int, n_fft: int) -> np.ndarray:
    """Return Ellis's chroma filter bank, with tuning 0 and the other defaults of `librosa.filters.chroma`.

    The weights are Gaussians around each pitch class. The twelve weights of a bin have unit norm; they are
    then weighted by a Gaussian of 2 octaves around octave 5.

    Args:
        sample_rate: Sample rate in Hz.
        n_fft: Samples of an STFT frame.

    Returns:
        float32 [12, bins], C first.
    """
    notes = 12 * np.log2(np.arange(1, n_fft) * (sample_rate / n_fft) / (440.0 / 16))
    notes = np.concatenate(([notes[0] - 1.5 * 12], notes))
    width = np.concatenate((np.maximum(np.diff(notes), 1.0), [1.0]))
    distance = np.remainder(notes - np.arange(12)[:, None] + 6 + 120, 12) - 6
    weights = np.exp(-0.5 * (2 * distance / width) ** 2)
    weights /= np.linalg.norm(weights, axis=0)
    weights *= np.exp(-0.5 * ((notes / 12 - 5) / 2) ** 2)
    bands = np.ascontiguousarray(np.roll(weights, -3, axis=0)[:, : n_fft // 2 + 1], dtype=np.float32)
    bands.setflags(write=False)
    return bands


@functools.lru_cache(maxsize=8)
def contrast_bands(sample_rate: int, n_fft: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the bands of the spectral contrast.

    Args:
        sample_rate: Sample rate in Hz.
        n_fft: Samples of an STFT frame.

    Returns:
        First bin, last bin + 1, and number of bins of a peak or a valley; int64 [bands] each.
    """
    count = contrast_count(sample_rate)
    edges = np.concatenate(([0.0], CONTRAST_LOWEST * 2.0 ** np.arange(count)))
    frequency = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    low, high, extremes = [], [], []
    for band, (bottom, top) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = np.flatnonzero((frequency >= bottom) & (frequency <= top))
        first = inside[0] - (band > 0)
        last = len(frequency) if band == count - 1 else inside[-1] + 1
        low.append(first)
        high.append(last - (band < count - 1))
        extremes.append(max(1, int(np.rint(CONTRAST_QUANTILE * (last - first)))))
    return np.array(low), np.array(high), np.array(extremes)
