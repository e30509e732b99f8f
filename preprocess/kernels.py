"""The GPU's own steps between the transform and finished images, as Triton kernels: each reads what the last one wrote once.

Frames are rows. Logarithms are kept as uint16, LOG steps an octave (0.012 dB; all of float32's range fits); levels, 0 … 255
between floor and maximum, as float16 less CENTRE. Sums run in a fixed order, so that a clip's images do not depend on the batch
it came in. Numbers are rounded by adding 2 ** 23, whose last bit is 1: conversions run at a quarter of the rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

LOG = 256  # steps of the kept logarithms per octave, from float32's smallest on
SILENT = 0  # the logarithm of nothing
CENTRE = 128
BLOCK = 1 << 10  # values of a program, about
_LOG, _CENTRE, _SILENT = tl.constexpr(LOG), tl.constexpr(CENTRE), tl.constexpr(SILENT)
_TINY, _MAGIC = tl.constexpr(2.0**-126), tl.constexpr(2.0**23)
_COMPILED = tl.constexpr(not triton.knobs.runtime.interpret)


class Along(NamedTuple):
    """`filters.Taps` on the device."""

    first: torch.Tensor  # int32 [out]
    weights: torch.Tensor  # float32 [out, taps]


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
def _windowed_power(spectrum, owner, peaks, logs, power, frames, pitch, HALF: tl.constexpr, ROWS: tl.constexpr,
                    POWER: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    clip = tl.load(owner + row, mask=row < frames, other=-1)
    inside = clip >= 0
    start = row * (2 * HALF + 2)
    j = tl.arange(0, 2 * HALF)[None, :]
    own = tl.load(spectrum + start[:, None] + j, mask=inside[:, None], other=0.0)
    right = tl.load(spectrum + start[:, None] + j + 2, mask=inside[:, None], other=0.0)
    left = tl.load(spectrum + start[:, None] + j - 2, mask=inside[:, None] & (j >= 2), other=0.0)
    left = tl.where(j == 0, right, tl.where(j == 1, -right, left))  # the spectrum of real samples mirrors at 0 and at its end
    value = 0.5 * own - 0.25 * (left + right)
    bins = tl.sum(tl.reshape(value * value, [ROWS, HALF, 2]), axis=2)
    top = tl.load(spectrum + start + 2 * HALF, mask=inside, other=0.0)
    before = tl.load(spectrum + start + 2 * HALF - 2, mask=inside, other=0.0)
    top = 0.5 * top - 0.5 * before
    k = tl.arange(0, HALF)[None, :]
    if POWER:
        at = row * (HALF + 1)
        tl.store(power + at[:, None] + k, bins, mask=inside[:, None])
        tl.store(power + at + HALF, top * top, mask=inside)
    if logs is not None:
        fixed, last = _logarithm(bins), _logarithm(top * top)
        at = row * pitch
        tl.store(logs + at[:, None] + k, fixed.to(tl.uint16), mask=inside[:, None])
        tl.store(logs + at + HALF, last.to(tl.uint16), mask=inside)
        tl.atomic_max(peaks + clip, tl.maximum(tl.max(fixed, axis=1), last), mask=inside)


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


@triton.jit(do_not_specialize=["size"])  # stores of a pixel each: threads then keep one pixel, and its weights, for all rows
def _lines(logs, owner, first, weights, peaks, lines, frames, pitch, size, factor, taps: tl.constexpr, ROWS: tl.constexpr,
           TILE: tl.constexpr):  # fmt: skip
    item = tl.arange(0, ROWS * TILE)
    row, pixel = tl.program_id(0) * ROWS + item // TILE, tl.program_id(1) * TILE + item % TILE
    clip = tl.load(owner + row, mask=row < frames, other=-1)
    peak = tl.load(peaks + clip, mask=clip >= 0, other=0)
    peak_level = (peak.to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True)
    column = tl.minimum(pixel, size - 1)
    at = logs + tl.minimum(row, frames - 1) * pitch + tl.load(first + column)
    total = tl.zeros([ROWS * TILE], tl.float32)
    for tap in range(taps):
        below = (tl.load(at + tap).to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True) - peak_level
        total += tl.load(weights + column * taps + tap) * tl.maximum(below * factor + 255.0, 0.0)
    total = tl.where(peak > _SILENT, total, 0.0)
    tl.store(lines + row * size + pixel, (total - _CENTRE).to(tl.float16), mask=(clip >= 0) & (pixel < size))


@triton.jit
def _images(lines, views, images, size, TIME: tl.constexpr, FREQUENCY: tl.constexpr):
    view = tl.program_id(0)
    first, frames = tl.load(views + 2 * view), tl.load(views + 2 * view + 1)
    time, pixel = tl.program_id(1) * TIME + tl.arange(0, TIME), tl.program_id(2) * FREQUENCY + tl.arange(0, FREQUENCY)
    inside = (time < size)[:, None] & (pixel < size)[None, :]
    scale = frames / size
    radius = tl.maximum(scale, 1.0)
    slope = 1 / radius
    centre = (time + 0.5) * scale - 0.5
    begin = tl.ceil(centre - radius).to(tl.int32)
    total, norm = tl.zeros([TIME, FREQUENCY], tl.float32), tl.zeros([TIME], tl.float32)
    tap = 0
    while tap < 2 * radius:
        for _ in tl.static_range(2):
            weight = tl.maximum(1 - tl.abs(begin + tap - centre) * slope, 0.0)
            row = first + tl.minimum(tl.maximum(begin + tap, 0), frames - 1)
            line = tl.load(lines + row.to(tl.int64)[:, None] * size + pixel[None, :], mask=inside, other=0.0)
            total += weight[:, None] * line.to(tl.float32)
            norm += weight
            tap += 1
    level = _rounded(total * (1 / norm)[:, None] + _CENTRE).to(tl.uint8)
    at = view.to(tl.int64) * size * size + pixel[:, None] * size + time[None, :]
    tl.store(images + at, tl.trans(level), mask=tl.trans(inside))


def windowed_power(
    spectrum: torch.Tensor, owner: torch.Tensor, peaks: torch.Tensor, logs: torch.Tensor | None, power: torch.Tensor | None
) -> None:
    """Spectra of frames without a window, complex64 [frames, bins] → their power under a periodic Hann window.

    The window is three terms of the spectrum: X[k] / 2 - (X[k - 1] + X[k + 1]) / 4. Written are the logarithms (uint16 [frames,
    pitch]), which raise the peak (int32 [clips]) of the clip that `owner` (int32 [frames]; -1: none, nothing is written) names,
    and the power itself (float32 [frames, bins]); None: not wanted.
    """
    frames, bins = spectrum.shape
    parts = torch.view_as_real(spectrum)
    half, pitch = bins - 1, 0 if logs is None else logs.stride(0)
    rows = max(1, BLOCK // half)
    warps = max(1, min(16, rows * half // 256))
    _windowed_power[(triton.cdiv(frames, rows),)](
        parts,
        owner,
        peaks,
        logs,
        power,
        frames,
        pitch,
        half,
        rows,
        power is not None,
        num_warps=warps,
    )


def bands(power: torch.Tensor, owner: torch.Tensor, along: Along, peaks: torch.Tensor, logs: torch.Tensor) -> None:
    """Power float32 [frames, bins] → logarithms of its weighted sums, and peaks."""
    count, taps = along.weights.shape
    tile = min(128, triton.next_power_of_2(count))
    rows = BLOCK // tile
    grid = (triton.cdiv(len(power), rows), triton.cdiv(count, tile))
    _bands[grid](power, owner, *along, peaks, logs, len(power), logs.stride(0), power.shape[1], count, taps, rows, tile)


def level_lines(
    logs: torch.Tensor, owner: torch.Tensor, along: Along, peaks: torch.Tensor, floor_db: float, lines: torch.Tensor
) -> None:
    """Logarithms relative to their clip's peak, no less than `floor_db`, resized along frequency → lines float16 [frames,
    size].
    """
    frames, size = lines.shape
    factor = 10 * math.log10(2) / LOG * 255 / -floor_db
    tile = min(256, triton.next_power_of_2(size))
    rows = max(1, BLOCK // tile // 2)
    grid = (triton.cdiv(frames, rows), triton.cdiv(size, tile))
    _lines[grid](logs, owner, *along, peaks, lines, frames, logs.stride(0), size, factor, along.weights.shape[1], rows, tile)


def draw_images(lines: torch.Tensor, views: torch.Tensor, size: int) -> torch.Tensor:
    """Views (int32 [views, 2]: first frame, frames) of lines, resized along time, rounded half up → uint8 [views, size, size]."""
    images = torch.empty(len(views), size, size, dtype=torch.uint8, device=lines.device)
    time, frequency = min(128, triton.next_power_of_2(size)), min(64, triton.next_power_of_2(size))
    grid = (len(views), triton.cdiv(size, time), triton.cdiv(size, frequency))
    _images[grid](lines, views, images, size, time, frequency, num_warps=8)
    return images
