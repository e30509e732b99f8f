"""The GPU's own steps between the transform and finished images, as Triton kernels: each reads what the last one wrote once.

Frames are rows. Logarithms are kept as uint16, LOG steps an octave (0.012 dB, which is a level where the floor is -3 dB; all of
float32's range fits); levels, 0 … 255 between floor and maximum, as float16 less CENTRE. Sums run in a fixed order, so that a
clip's images do not depend on the batch it came in. Numbers are rounded by adding 2 ** 23, whose last bit is 1: conversions run
at a quarter of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

LOG = 256  # steps of the kept logarithms per octave, from float32's smallest on
SILENT = 0  # the logarithm of nothing
CENTRE = 128
BLOCK = 1 << 10  # values of a program, about
ROWS, TILE, STEP = 64, 64, 32  # of a product of tiles: frames, pixels, and what is summed over at a time
_LOG, _CENTRE, _SILENT = tl.constexpr(LOG), tl.constexpr(CENTRE), tl.constexpr(SILENT)
_TINY, _MAGIC = tl.constexpr(2.0**-126), tl.constexpr(2.0**23)
_COMPILED = tl.constexpr(not triton.knobs.runtime.interpret)


class Along(NamedTuple):
    """`filters.Taps` on the device."""

    first: torch.Tensor  # int32 [out]
    weights: torch.Tensor  # float32 [out, taps]


class Tiles(NamedTuple):
    """A banded matrix for products of tiles: the TILE columns from i * TILE on are zero but for `span` rows from begins[i] on."""

    begins: torch.Tensor  # int32 [tiles]
    weights: torch.Tensor  # float16 [rows, columns], padded with zeros
    span: int


def tiles(matrix: np.ndarray, device: torch.device) -> Tiles:
    """`matrix` [out, in], whose rows are non-zero on one short range of columns each, for `level_lines`."""
    count, tile = -(-len(matrix) // TILE), _tile(len(matrix))
    used = [np.flatnonzero(matrix[i * tile : (i + 1) * tile].any(axis=0)) for i in range(count)]
    begins = [row[0] // 8 * 8 for row in used]
    longest = max(row[-1] + 1 - begin for row, begin in zip(used, begins, strict=True))
    span = int(-(-longest // STEP) * STEP)
    padded = np.zeros((max(begins) + span, count * tile), np.float16)
    padded[: matrix.shape[1], : len(matrix)] = matrix.T[: len(padded)]
    return Tiles(torch.tensor(begins, dtype=torch.int32, device=device), torch.tensor(padded, device=device), span)


@triton.jit
def _rounded(value):
    """A number of 0 … 2 ** 16 to the nearest int32."""
    return (value + _MAGIC).to(tl.int32, bitcast=True) & 0xFFFF


@triton.jit
def _logarithm(power):
    """Power → its logarithm in steps."""
    power = tl.maximum(power, _TINY)
    octaves = libdevice.fast_log2f(power) if _COMPILED else tl.log2(power)  # the GPU's own, good to 2 ** -22
    return _rounded(octaves * _LOG + 126 * _LOG)


@triton.jit
def _point(spectrum, at):
    """A complex number, which is loaded as one int64: real and imaginary part."""
    value = tl.load(spectrum + at)
    return value.to(tl.int32).to(tl.float32, bitcast=True), (value >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _pair(spectrum, start, k, cos, sin, step_cos, step_sin, POINTS: tl.constexpr):
    """Powers of the windowed frames' spectra at k and POINTS - k, from the transform Z of the frames as POINTS complex numbers.

    The spectrum of the real frame is X[j] = E[j] + W^j O[j], with 2 E[j] = Z[j] + Z*[-j], 2i O[j] = Z[j] - Z*[-j] and
    W = exp(-2πi / 2 POINTS); under the periodic Hann window it is X[k] / 2 - (X[k - 1] + X[k + 1]) / 4.
    """
    before, after = (k - 1) & (POINTS - 1), k + 1
    ar, ai = _point(spectrum, start + before)
    br, bi = _point(spectrum, start + k)
    cr, ci = _point(spectrum, start + after)
    dr, di = _point(spectrum, start + ((POINTS - before) & (POINTS - 1)))
    er, ei = _point(spectrum, start + ((POINTS - k) & (POINTS - 1)))
    fr, fi = _point(spectrum, start + POINTS - after)
    even_r = 0.5 * (br + er) - 0.25 * (ar + cr + dr + fr)
    even_i = 0.5 * (bi - ei) - 0.25 * (ai + ci - di - fi)
    ar, ai, br, bi, cr, ci = ar - dr, ai + di, br - er, bi + ei, cr - fr, ci + fi
    odd_r = 0.5 * br - 0.25 * (step_cos * (ar + cr) - step_sin * (ai - ci))
    odd_i = 0.5 * bi - 0.25 * (step_cos * (ai + ci) + step_sin * (ar - cr))
    turned_r, turned_i = cos * odd_i - sin * odd_r, cos * odd_r + sin * odd_i  # the imaginary part's sign is in what follows
    low_r, low_i, high_r, high_i = even_r + turned_r, even_i - turned_i, even_r - turned_r, even_i + turned_i
    return 0.25 * (low_r * low_r + low_i * low_i), 0.25 * (high_r * high_r + high_i * high_i)


@triton.jit(do_not_specialize=["pitch"])  # wide stores would have the layout of every load changed
def _windowed_power(spectrum, turns, owner, peaks, logs, power, frames, pitch, step_cos, step_sin, POINTS: tl.constexpr,
                    ROWS: tl.constexpr):  # fmt: skip
    pairs: tl.constexpr = POINTS // 2
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    item = tl.arange(0, ROWS * pairs)
    row, k = tl.program_id(0) * ROWS + item // pairs, item % pairs
    cos, sin = tl.load(turns + 2 * k), tl.load(turns + 2 * k + 1)
    low, high = _pair(spectrum, tl.minimum(row, frames - 1) * POINTS, k, cos, sin, step_cos, step_sin, POINTS)
    middle, _ = _pair(spectrum, tl.minimum(rows, frames - 1) * POINTS, rows * 0 + pairs, 0.0, 1.0, step_cos, step_sin, POINTS)
    clip, clips = tl.load(owner + row, mask=row < frames, other=-1), tl.load(owner + rows, mask=rows < frames, other=-1)
    at, inside = row * pitch, clip >= 0
    if power is not None:
        tl.store(power + at + k, low, mask=inside)
        tl.store(power + at + POINTS - k, high, mask=inside)
        tl.store(power + rows * pitch + pairs, middle, mask=clips >= 0)
    else:
        low, high, middle = _logarithm(low), _logarithm(high), _logarithm(middle)
        tl.store(logs + at + k, low.to(tl.uint16), mask=inside)
        tl.store(logs + at + POINTS - k, high.to(tl.uint16), mask=inside)
        tl.store(logs + rows * pitch + pairs, middle.to(tl.uint16), mask=clips >= 0)
        top = tl.max(tl.reshape(tl.maximum(low, high), [ROWS, pairs]), axis=1)
        tl.atomic_max(peaks + clips, tl.maximum(top, middle), mask=clips >= 0)


@triton.jit
def _bands(power, owner, first, weights, peaks, logs, frames, pitch, bins, bands, taps: tl.constexpr, ROWS: tl.constexpr,
           TILE: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    clip = tl.load(owner + row, mask=row < frames, other=-1)
    band = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = (clip >= 0)[:, None] & (band < bands)[None, :]
    at = row[:, None] * bins + tl.load(first + band, mask=band < bands, other=0)[None, :]
    total = tl.zeros([ROWS, TILE], tl.float32)
    for tap in range(taps):
        weight = tl.load(weights + band * taps + tap, mask=band < bands, other=0.0)
        total += weight[None, :] * tl.load(power + at + tap, mask=inside, other=0.0)
    fixed = _logarithm(total)
    tl.store(logs + row[:, None] * pitch + band[None, :], fixed.to(tl.uint16), mask=inside)
    highest = tl.max(tl.where(inside, fixed, _SILENT), axis=1)
    tl.atomic_max(peaks + clip, highest, mask=clip >= 0)


@triton.jit
def _lines(logs, owner, begins, weights, peaks, lines, frames, pitch, size, columns, factor, SPAN: tl.constexpr,
           ROWS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    row, pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * TILE + tl.arange(0, TILE)
    clip = tl.load(owner + row, mask=row < frames, other=-1)
    peak = tl.load(peaks + clip, mask=clip >= 0, other=0)
    peak_level = (peak.to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True)
    begin = tl.multiple_of(tl.load(begins + tl.program_id(1)), 8)
    start = tl.minimum(row, frames - 1) * pitch
    total = tl.zeros([ROWS, TILE], tl.float32)
    for part in range(0, SPAN, STEP):
        column = begin + part + tl.arange(0, STEP)
        log = tl.load(logs + start[:, None] + column[None, :])
        below = (log.to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True) - peak_level[:, None]
        level = tl.minimum(tl.maximum(below * factor + (255.0 - _CENTRE), -_CENTRE), 255.0 - _CENTRE)  # beyond the rows: anything
        total = tl.dot(level.to(tl.float16), tl.load(weights + column[:, None] * columns + pixel[None, :]), total)
    total = tl.where((peak > _SILENT)[:, None], total, -_CENTRE)
    inside = (clip >= 0)[:, None] & (pixel < size)[None, :]
    tl.store(lines + row[:, None] * size + pixel[None, :], total.to(tl.float16), mask=inside)


@triton.jit
def _images(lines, views, images, size, TILE: tl.constexpr, STEP: tl.constexpr, LOOPS: tl.constexpr, WHOLE: tl.constexpr):
    """LOOPS tiles of an image beside each other; more than one where their columns take STEP frames or fewer."""
    view = views + 3 * tl.program_id(0)
    image, first, frames = tl.load(view), tl.load(view + 1), tl.load(view + 2)
    start = tl.program_id(1) * TILE
    time = start + tl.arange(0, TILE)
    scale = frames / size
    radius = tl.maximum(scale, 1.0)
    begin = tl.ceil((start + 0.5) * scale - 0.5 - radius).to(tl.int32)
    end = (start + TILE - 0.5) * scale - 0.5 + radius
    weight, row = _weights(time, begin, first, frames, scale, radius, STEP)
    norm = tl.sum(weight.to(tl.float32), axis=0)
    for tile in range(LOOPS):
        pixel = (tl.program_id(2) * LOOPS + tile) * TILE + tl.arange(0, TILE)
        at = lines + row[:, None] * size + pixel[None, :]
        line = tl.load(at) if WHOLE else tl.load(at, mask=(pixel < size)[None, :], other=0.0)
        total = tl.dot(tl.trans(line), weight)
        if LOOPS == 1:
            frame = begin + STEP
            while frame < end:
                weight, row = _weights(time, frame, first, frames, scale, radius, STEP)
                at = lines + row[:, None] * size + pixel[None, :]
                line = tl.load(at) if WHOLE else tl.load(at, mask=(pixel < size)[None, :], other=0.0)
                total = tl.dot(tl.trans(line), weight, total)
                norm += tl.sum(weight.to(tl.float32), axis=0)
                frame += STEP
        level = _rounded(total * (1 / norm)[None, :] + _CENTRE).to(tl.uint8)
        to = images + (image.to(tl.int64) * size + pixel[:, None]) * size + time[None, :]
        if WHOLE:
            tl.store(to, level)
        else:
            tl.store(to, level, mask=(pixel < size)[:, None] & (time < size)[None, :])


@triton.jit
def _weights(time, frame, first, frames, scale, radius, STEP: tl.constexpr):
    """Of STEP frames from `frame` of the view on, for the pixels `time`: float16 [STEP, time]; and their lines."""
    step = frame + tl.arange(0, STEP)
    centre = (time + 0.5) * scale - 0.5
    weight = tl.maximum(1 - tl.abs(step[:, None] - centre[None, :]) * (1 / radius), 0.0)
    return weight.to(tl.float16), (first + tl.minimum(tl.maximum(step, 0), frames - 1)).to(tl.int64)


def windowed_power(
    spectrum: torch.Tensor, turns: torch.Tensor, owner: torch.Tensor, peaks: torch.Tensor, logs: torch.Tensor | None,
    power: torch.Tensor | None,
) -> None:  # fmt: skip
    """Transforms of frames as complex numbers (even samples real, odd samples imaginary), without a window → under a periodic
    Hann window.

    `spectrum` is complex64 [frames, points], `turns` float32 [points / 2, 2] the (cos, sin) of πk / points. Written is the power
    (float32 [frames, points + 1]) or, where that is None, its logarithms (uint16 [frames, pitch]), which raise the peak (int32
    [clips]) of the clip that `owner` (int32 [frames]; -1: none, nothing is written) names.
    """
    frames, points = spectrum.shape
    rows = max(1, 2 * BLOCK // points)
    warps = max(1, min(16, rows * points // 1024))
    target = logs if power is None else power
    assert target is not None
    step = math.pi / points
    _windowed_power[(triton.cdiv(frames, rows),)](
        spectrum.view(torch.int64), turns, owner, peaks, logs, power, frames, target.stride(0), math.cos(step), math.sin(step),
        points, rows, num_warps=warps,
    )  # fmt: skip


def bands(power: torch.Tensor, owner: torch.Tensor, along: Along, peaks: torch.Tensor, logs: torch.Tensor) -> None:
    """Power float32 [frames, bins] → logarithms of its weighted sums, and peaks; see `windowed_power`."""
    count, taps = along.weights.shape
    tile = min(128, triton.next_power_of_2(count))
    rows = BLOCK // tile
    grid = (triton.cdiv(len(power), rows), triton.cdiv(count, tile))
    _bands[grid](power, owner, *along, peaks, logs, len(power), logs.stride(0), power.shape[1], count, taps, rows, tile)


def level_lines(
    logs: torch.Tensor, owner: torch.Tensor, resize: Tiles, peaks: torch.Tensor, floor_db: float, lines: torch.Tensor
) -> None:
    """Logarithms (uint16 [frames, pitch], the pitch at least the rows of `resize`) relative to their clip's peak, no less than
    `floor_db`, resized along frequency → lines float16 [frames, size].
    """
    frames, size = lines.shape
    factor = 10 * math.log10(2) / LOG * 255 / -floor_db
    columns = resize.weights.shape[1]
    grid = (triton.cdiv(frames, ROWS), len(resize.begins))
    _lines[grid](
        logs, owner, resize.begins, resize.weights, peaks, lines, frames, logs.stride(0), size, columns, factor, resize.span,
        ROWS, columns // len(resize.begins), STEP,
    )  # fmt: skip


def view_table(views: Sequence[tuple[int, int]], size: int) -> tuple[np.ndarray, int]:
    """(first frame, frames) of views as `draw_images` takes them, and how many of them come first: the long ones."""
    tile = _tile(size)
    table = np.array([(number, *view) for number, view in enumerate(views)], np.int32).reshape(-1, 3)
    scale = table[:, 2] / size
    long = (tile - 1) * scale + 2 * np.maximum(scale, 1) + 1 > STEP
    return np.concatenate([table[long], table[~long]]), int(long.sum())


def draw_images(lines: torch.Tensor, views: torch.Tensor, long: int, size: int) -> torch.Tensor:
    """Views (of `view_table`; int32 [views, 3]: number, first frame, frames) of lines, resized along time, rounded half up →
    uint8 [views, size, size] by number.
    """
    images = torch.empty(len(views), size, size, dtype=torch.uint8, device=lines.device)
    tile = _tile(size)
    tiles_across = triton.cdiv(size, tile)
    for part, step, loops in ((views[:long], 2 * STEP, 1), (views[long:], STEP, tiles_across)):
        if len(part):
            grid = (len(part), tiles_across, tiles_across // loops)
            _images[grid](lines, part, images, size, tile, step, loops, size % tile == 0)
    return images


def _tile(size: int) -> int:
    return min(TILE, max(16, triton.next_power_of_2(size)))
