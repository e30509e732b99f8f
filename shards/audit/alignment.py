"""Similarity of two clips at the offset where their traces agree best."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import fft

from shardwave.shards.audit.traces import Traces

OVERLAP = 0.5  # least overlap, as a fraction of the shorter clip
SHARED = 0.3  # least fraction of the energy of each trace that lies in the overlap
LIVE = 0.2  # seconds of sound that the overlap needs at least
CHUNK = 256  # pairs that are transformed at a time


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Similarity of pairs of clips.

    Args:
        similarity: Correlation coefficient of the traces at the best offset, float64 [pairs].
        offset: Seconds by which the second clip lags behind the first, float64 [pairs].
    """

    similarity: np.ndarray
    offset: np.ndarray


def agreement(traces: Traces, pairs: np.ndarray) -> Agreement:
    """Compute the similarity of pairs of clips by cross-correlation of their traces.

    Args:
        traces: Traces of all clips.
        pairs: Rows of the clips, int64 [pairs, 2].
    """
    similarity, offset = np.zeros(len(pairs)), np.zeros(len(pairs))
    lengths = np.array([trace.shape[1] for trace in traces.values], np.int64)
    order = np.argsort(lengths[pairs].max(1), kind="stable")  # pairs of one chunk have similar lengths
    for start in range(0, len(pairs), CHUNK):
        rows = order[start : start + CHUNK]
        similarity[rows], offset[rows] = _chunk(traces, pairs[rows], lengths)
    return Agreement(similarity, offset * traces.frame)


def _chunk(traces: Traces, pairs: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return similarity and offset in frames of some pairs."""
    clips, index = np.unique(pairs, return_inverse=True)
    one, other = index.reshape(pairs.shape).T
    longest = int(lengths[clips].max())
    values = np.zeros((len(clips), traces.values[0].shape[0], longest), np.float32)
    for row, clip in enumerate(clips):
        values[row, :, : lengths[clip]] = traces.values[clip]
    size = fft.next_fast_len(2 * longest, real=True)
    spectra = fft.rfft(values, size, axis=2)
    product = np.einsum("pbf,pbf->pf", spectra[one].conj(), spectra[other])
    lags = np.arange(-(longest - 1), longest)
    correlation = fft.irfft(product, size, axis=1)[:, lags]
    energy = np.zeros((len(clips), longest + 1))  # of all frames before each frame
    np.cumsum((values**2).sum(1), axis=1, out=energy[:, 1:])
    live = np.zeros((len(clips), longest + 1), np.int64)  # frames that are not quiet before each frame
    np.cumsum((values != 0).any(1), axis=1, out=live[:, 1:])
    length = lengths[pairs]  # frame t of the first clip meets frame t + lag of the second
    begin = np.minimum(np.maximum(0, -lags)[None], length[:, :1])
    end = np.clip(length[:, 1:] - lags[None], begin, length[:, :1])
    first = _between(energy[one], begin, end)
    second = _between(energy[other], begin + lags, end + lags)
    sound = np.minimum(_between(live[one], begin, end), _between(live[other], begin + lags, end + lags))
    fits = (end - begin) >= OVERLAP * length.min(1, keepdims=True)
    fits &= (first >= SHARED * energy[one][:, -1:]) & (second >= SHARED * energy[other][:, -1:])
    fits &= sound * traces.frame >= LIVE
    coefficient = np.where(fits, correlation / np.sqrt(np.maximum(first * second, 1.0)), 0.0)
    best = coefficient.argmax(1)
    return coefficient[np.arange(len(pairs)), best], lags[best].astype(np.float64)


def _between(total: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the differences of running totals [pairs, frames + 1] between two frames [pairs, lags]."""
    last = total.shape[1] - 1
    return np.take_along_axis(total, np.clip(end, 0, last), 1) - np.take_along_axis(
        total, np.clip(begin, 0, last), 1
    )
