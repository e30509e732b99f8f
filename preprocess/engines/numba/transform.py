"""Compiled functions for the power spectra of sixteen frames at a time.

The lanes of a vector are frames, so that only the first step moves data between lanes. A real transform of N
samples is computed by a complex transform of M = N / 2 points (even samples real, odd samples imaginary),
decimated in frequency with radices 8, 4 and 2. The last step derives the real spectrum from it (Press et al.,
Numerical Recipes, §12.3) and squares it. The first step also applies the window; after it, each part of M / 8
points is completed while it is in the first-level cache. Point i of the work buffer is a vector of sixteen
real parts at 32 i and one of sixteen imaginary parts at 32 i + 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shardwave.preprocess.engines.numba.numba_cache import inlined
from shardwave.preprocess.engines.numba.simd import LANES, Index, Pointer, Vector, traced, transpose

_POINT = 2 * LANES  # floats per complex point
_HALF = float(np.sqrt(0.5))

Complex = tuple[Vector, Vector]


class Plan(NamedTuple):
    """Tables of the transform of one size; all arrays are read only."""

    hop: int  # samples
    columns: int  # hops of a block in the hop buffer, a multiple of LANES
    window: np.ndarray  # float32 [n_fft], periodic Hann / 2
    sample_at: np.ndarray  # int64 [n_fft]: index of the sample of lane 0 in the hop buffer
    radices: np.ndarray  # int64 [stages]
    twiddle_at: np.ndarray  # int64 [stages]: index of the first twiddle factor of the stage
    twiddles: np.ndarray  # float32, per stage [j, p, (cos, sin)]
    position: np.ndarray  # int64 [M]: index of frequency k in the work buffer
    real_twiddles: np.ndarray  # float32 [M / 2 + 1, 2]: exp(-2πik / N)


def plan(n_fft: int, hop: int) -> Plan:
    """Return the plan of transforms.

    Args:
        n_fft: Samples of a frame, a power of two, 16 or more.
        hop: Samples between frames.
    """
    points = n_fft // 2
    radices = _radices(points)
    twiddles: list[np.ndarray] = []
    starts, size = [], points
    position = np.zeros(points, np.int64)
    frequency, weight = np.zeros(points, np.int64), 1
    for radix in radices:
        j, p = np.arange(size // radix)[:, None], np.arange(1, radix)
        starts.append(sum(len(part) for part in twiddles))
        twiddles.append(_cos_sin(j * p / size).ravel())
        size //= radix
        frequency += np.arange(points) // size % radix * weight
        weight *= radix
    position[frequency] = np.arange(points) * _POINT
    n = np.arange(n_fft)
    columns = -(-(LANES - 1 + -(-n_fft // hop)) // LANES) * LANES
    return Plan(
        hop,
        columns,
        (0.25 - 0.25 * np.cos(2 * np.pi * n / n_fft)).astype(np.float32),
        n % hop * columns + n // hop,
        np.array(radices),
        np.array(starts),
        np.concatenate(twiddles),
        position,
        _cos_sin(np.arange(points // 2 + 1) / n_fft).ravel(),
    )


def _radices(points: int) -> list[int]:
    bits, radices = points.bit_length() - 4, [8]
    while bits > 4:
        radices, bits = [*radices, 8], bits - 3
    rest: dict[int, list[int]] = {0: [], 1: [2], 2: [4], 3: [8], 4: [4, 4]}
    return radices + rest[bits]


def _cos_sin(turns: np.ndarray) -> np.ndarray:
    angle = -2 * np.pi * turns
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def _dft(x: list[Complex]) -> list[Complex]:
    """Compute the forward transform of 1, 2, 4 or 8 points by halving."""
    if len(x) == 1:
        return x
    even, odd = _dft(x[0::2]), _dft(x[1::2])
    low: list[Complex] = []
    high: list[Complex] = []
    for k, ((er, ei), (r, i)) in enumerate(zip(even, odd, strict=True)):
        eighth = 8 * k // len(x)
        if eighth == 1:
            r, i = (r + i) * _HALF, (i - r) * _HALF
        elif eighth == 3:  # the rotated point is (r, -i)
            r, i = (i - r) * _HALF, (r + i) * _HALF
        if eighth == 0 or eighth == 1:
            low, high = [*low, (er + r, ei + i)], [*high, (er - r, ei - i)]
        elif eighth == 2:
            low, high = [*low, (er + i, ei - r)], [*high, (er - i, ei + r)]
        else:
            low, high = [*low, (er + r, ei - i)], [*high, (er - r, ei + i)]
    return low + high


def _store_rotated(
    work: Pointer, at: Index, step: Index, y: list[Complex], twiddles: Pointer, first: Index
) -> None:
    """Store points at `at`, `at` + `step`, ..., multiplied by twiddle factors except the first."""
    work.store(at, y[0][0])
    work.store(at + LANES, y[0][1])
    for p, (r, i) in enumerate(y[1:]):
        c, s = twiddles.broadcast(first + 2 * p), twiddles.broadcast(first + (2 * p + 1))
        at = at + step
        work.store(at, r * c - i * s)
        work.store(at + LANES, r * s + i * c)


@traced
def _first_butterfly(hops, sample_at, window, j, quarter, work, twiddles, twiddle):
    """Transform the points j + q M/8 with radix 8; they are windowed samples of the hop buffer."""
    points = []
    for q in range(8):
        n = j * 2 + quarter * (2 * q)
        points.append(
            tuple(hops.load(sample_at.index(n + odd)) * window.broadcast(n + odd) for odd in (0, 1))
        )
    _store_rotated(work, j * _POINT, quarter * _POINT, _dft(points), twiddles, twiddle)


def _butterfly(radix: int) -> Any:
    def butterfly(work, at, step, twiddles, twiddle):
        points = [(work.load(at + step * q), work.load(at + step * q + LANES)) for q in range(radix)]
        _store_rotated(work, at, step, _dft(points), twiddles, twiddle)

    return traced(butterfly)


_butterfly8, _butterfly4, _butterfly2 = _butterfly(8), _butterfly(4), _butterfly(2)


@traced
def _real_power(work, at, opposite, twiddles, k, power, low, high, peak):
    """Compute |X[k]|² and |X[M - k]|² from points k and M - k of the complex transform; update `peak`."""
    ar, ai = work.load(at), work.load(at + LANES)
    br, bi = work.load(opposite), work.load(opposite + LANES)
    c, s = twiddles.broadcast(k * 2), twiddles.broadcast(k * 2 + 1)
    er, ei, r, i = ar + br, ai - bi, ai + bi, br - ar
    tr, ti = r * c - i * s, r * s + i * c
    xr, xi, yr, yi = er + tr, ei + ti, er - tr, ei - ti
    x, y = xr * xr + xi * xi, yr * yr + yi * yi
    power.store(low, x)
    power.store(high, y)
    peak.store(0, peak.load(0).maximum(x).maximum(y))


@traced
def _transpose_tile(samples, start, hop, hops, to, columns):
    """Transpose sixteen samples of sixteen hops, from [hop, sample] to [sample, hop]."""
    for i, row in enumerate(transpose([samples.load(start + hop * j) for j in range(LANES)])):
        hops.store(to + columns * i, row)


@traced
def _copy(source, start, target, to):
    target.store(to, source.load(start))


@inlined
def _transpose(samples, start, hop, hops, to, columns):
    """Transpose all samples of sixteen hops, from [hop, sample] to [sample, hop]."""
    whole = hop - hop % 16
    for m in range(0, whole, 16):
        _transpose_tile(samples, start + m, hop, hops, to + m * columns, columns)
    for m in range(whole, hop):
        for j in range(16):
            hops[to + m * columns + j] = samples[start + j * hop + m]


@inlined
def _fill(clip, start, count, scratch):
    """Copy `count` samples from `start` on to `scratch`; mirror the clip at its ends, with 0 beyond that."""
    last = clip.size - 1
    for i in range(count):
        n = start + i
        if n < 0:
            n = -n
        elif n > last:
            n = 2 * last - n
        scratch[i] = clip[n] if 0 <= n <= last else np.float32(0)


@inlined
def load_hops(clip, first_frame, fresh, plan, hops, scratch):
    """Load the samples of sixteen frames into the hop buffer.

    Args:
        clip: Samples as float32 [time] and as int16 [time], one of which is empty; so the function is
            compiled only once.
        first_frame: Number of the first frame.
        fresh: Whether the hop buffer is empty; else it holds the sixteen frames before `first_frame`.
        plan: Plan of the transform.
        hops: Hop buffer, float32 [hop, columns].
        scratch: Scratch for samples at the ends of the clip, float32 [16 * hop].
    """
    hop, columns = plan.hop, plan.columns
    floats, shorts = clip
    tile = 16 * hop
    done = 0
    if not fresh:
        done = columns // 16 - 1
        for m in range(hop):
            for c in range(done):
                _copy(hops, m * columns + c * 16 + 16, hops, m * columns + c * 16)
    for c in range(done, columns // 16):
        start = (first_frame + c * 16) * hop - plan.window.size // 2
        if start < 0 or start + tile > floats.size + shorts.size:
            if shorts.size:
                _fill(shorts, start, tile, scratch)
            else:
                _fill(floats, start, tile, scratch)
            _transpose(scratch, 0, hop, hops, c * 16, columns)
        elif shorts.size:
            _transpose(shorts, start, hop, hops, c * 16, columns)
        else:
            _transpose(floats, start, hop, hops, c * 16, columns)


@inlined
def power_block(hops, plan, work, power, at, peak):
    """Compute the power spectra of the sixteen frames in the hop buffer.

    Args:
        hops: Hop buffer, float32 [hop, columns].
        plan: Plan of the transform.
        work: Work buffer, float32 [16 * n_fft].
        power: Receives the powers, float32 [bins, 16], from index `at` on.
        at: Index of the first power.
        peak: Largest power of each lane, float32 [16]; updated.
    """
    points = plan.window.size // 2
    size = points // 8
    twiddles = plan.twiddles
    for j in range(size):
        _first_butterfly(hops, plan.sample_at, plan.window, j, size, work, twiddles, 14 * j)
    for part in range(8):
        extent = size
        for stage in range(1, plan.radices.size):
            radix = plan.radices[stage]
            step = extent // radix
            first = plan.twiddle_at[stage]
            for start in range(part * size, (part + 1) * size, extent):
                for j in range(step):
                    if radix == 8:
                        _butterfly8(work, (start + j) * 32, step * 32, twiddles, first + 14 * j)
                    elif radix == 4:
                        _butterfly4(work, (start + j) * 32, step * 32, twiddles, first + 6 * j)
                    else:
                        _butterfly2(work, (start + j) * 32, step * 32, twiddles, first + 2 * j)
            extent = step
    for k in range(points // 2 + 1):
        opposite = plan.position[points - k] if k else plan.position[0]
        to, mirror = at + k * 16, at + (points - k) * 16
        _real_power(work, plan.position[k], opposite, plan.real_twiddles, k, power, to, mirror, peak)
