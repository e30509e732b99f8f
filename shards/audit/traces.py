"""Traces of clips: small time-frequency differences that survive changes of level, bit rate and offset.

A trace is computed from the stored image of a clip, so that no audio is needed. The image is reduced to
`BANDS` bands evenly spaced in log frequency and to frames of equal duration for all clips of the set. The
trace is the difference between neighbouring bands of the difference between frames (as in Haitsma & Kalker
2002, but with values instead of signs): a change of level or of the frequency response cancels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.inspect.figures import row_of

BANDS = 24
LOWEST, HIGHEST = 100.0, 6_000.0  # Hz; lossy encoders keep these frequencies at low bit rates
SHORTEST_FRAME = 0.04  # seconds
FRAMES = 256  # frames of a clip of median length, at most
LONGEST = 4  # frames after this many times FRAMES are not used
LIMIT_DB = 8.0  # differences are clipped here, so that single onsets do not dominate
QUIET_DB = -55.0  # frames below this level, relative to the clip's maximum, are set to 0
CHUNK = 256  # images that are read at a time


@dataclasses.dataclass(frozen=True)
class Traces:
    """Traces of the clips of a set.

    Args:
        values: int8 [BANDS - 1, frames of the clip] per clip, in units of LIMIT_DB / 127.
        frame: Duration of a frame in seconds.
        silent: Fraction of quiet frames of each clip, float64 [clips]; 1 for a silent clip.
    """

    values: list[np.ndarray]
    frame: float
    silent: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


def traces(audited: AuditedSet) -> Traces | None:
    """Compute the traces of all clips; None if the set has no spectrogram images."""
    config = audited.shards.config
    if config is None or "npy" not in audited.shards.fields:
        return None
    weights = _band_weights(config)
    median = float(np.median(audited.seconds))
    frame = max(SHORTEST_FRAME, median / (2 * min(config.image_size, FRAMES // 2)))
    values, silent = [], np.zeros(len(audited))
    for start in range(0, len(audited), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(audited)))
        images = audited.view.gather(rows)["npy"].astype(np.float32)
        levels = config.floor_db * (1 - (weights @ images) / 255)
        for row, level, image in zip(rows.tolist(), levels, images, strict=True):
            silent[row] = (image.max(0) <= 255 * (1 - QUIET_DB / config.floor_db)).mean()
            frames = int(np.clip(round(audited.seconds[row] / frame), 4, LONGEST * FRAMES))
            values.append(_differences(_at_frames(level, frames, audited.seconds[row] / frame)))
    return Traces(values, frame, silent)


def _band_weights(config: SpectrogramConfig) -> np.ndarray:
    """Return the share of each image row in each band, float32 [BANDS, image_size]."""
    size = config.image_size
    edges = np.geomspace(LOWEST, min(HIGHEST, 0.45 * config.sample_rate), BANDS + 1)
    bounds = np.clip(row_of(config, edges) + 0.5, 0, size)
    rows = np.arange(size)
    weights = np.minimum(bounds[1:, None], rows + 1) - np.maximum(bounds[:-1, None], rows)
    weights = np.maximum(weights, 0)
    for band in np.flatnonzero(weights.sum(1) < 1e-6):  # narrower than a row
        weights[band, min(size - 1, int(bounds[band]))] = 1
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _at_frames(level: np.ndarray, frames: int, exact: float) -> np.ndarray:
    """Average the columns of an image over frames, or interpolate where frames are shorter than columns.

    Args:
        level: dB, [BANDS, image_size].
        frames: Number of frames to return.
        exact: Number of frames of the whole image.
    """
    columns = level.shape[1]
    step = columns / exact
    if step > 1:
        edges = np.minimum(np.arange(frames + 1) * step, columns)
        total = np.concatenate([np.zeros((len(level), 1), level.dtype), np.cumsum(level, 1)], 1)
        low = np.minimum(edges.astype(np.int64), columns - 1)
        sums = total[:, low] + (edges - low) * level[:, low]
        return np.diff(sums, axis=1) / np.maximum(np.diff(edges), 1e-9)
    centres = np.clip((np.arange(frames) + 0.5) * step - 0.5, 0, columns - 1)
    low = np.minimum(centres.astype(np.int64), columns - 2)
    share = centres - low
    return level[:, low] * (1 - share) + level[:, low + 1] * share


def _differences(level: np.ndarray) -> np.ndarray:
    """Return the trace of a clip from its levels in dB: int8 [BANDS - 1, frames - 2]."""
    bands = level[1:] - level[:-1]
    change = bands[:, 2:] - bands[:, :-2]
    loud = level.max(0) > QUIET_DB
    change = np.clip(change, -LIMIT_DB, LIMIT_DB) * (loud[1:-1] & loud[:-2] & loud[2:])
    return np.round(change * (127 / LIMIT_DB)).astype(np.int8)
