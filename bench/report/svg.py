"""Positions of a line chart that `page.html` draws as SVG; its width suits a phone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypedDict

from shardwave.bench.report.blocks import COLOURS, Lines, number

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 8, 196  # edges of the plot
FEW = 12  # curves with at most this many points get markers


Positions = list[tuple[float, float]]  # x from the left and y from the top, in pixels
Ticks = list[tuple[float, str]]  # position and label


class Curve(TypedDict):
    """A curve of a chart."""

    style: str  # classes
    name: str
    points: Positions
    band: Positions  # corners of a polygon
    dots: Positions


class Plot(TypedDict):
    """Positions of a chart, in pixels."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    curves: list[Curve]
    columns: Ticks
    rows: Ticks
    mark: float | None


def plot(lines: Lines) -> Plot | None:
    """Return edges, ticks as (position, label), and curves with points, bands and dots; None without points.

    Args:
        lines: Chart.
    """
    xs = [x for line in lines.lines for x, _ in line.points]
    ys = [y for line in lines.lines for _, y in line.points]
    ys += [edge for line in lines.lines for _, low, high in line.band for edge in (low, high)]
    if lines.log:
        xs, ys = [x for x in xs if x > 0], [y for y in ys if y > 0]
    if not xs or not ys:
        return None
    across, up = _Axis(xs, LEFT, RIGHT, lines.log), _Axis(ys, BOTTOM, TOP, lines.log)

    def positions(points: Iterable[tuple[float, float]]) -> Positions:
        return [(across.position(x), up.position(y)) for x, y in points]

    curves: list[Curve] = []
    for i, line in enumerate(lines.lines):
        points = [(x, y) for x, y in line.points if not lines.log or (x > 0 and y > 0)]
        corners = points
        if line.stairs:
            corners = points[:1] + [
                corner for (_, y), (x, after) in pairwise(points) for corner in ((x, y), (x, after))
            ]
        band = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
        curves.append({
            "style": f"c{i % COLOURS}{' dash' if line.dashed else ''}", "name": line.name,
            "points": positions(corners),
            "band": positions(band), "dots": positions(points) if len(points) <= FEW else [],
        })  # fmt: skip
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM,
        "curves": curves,
        "columns": across.ticks(), "rows": up.ticks(),
        "mark": None if lines.mark is None else across.position(lines.mark),
    }  # fmt: skip


class _Axis:
    """Scale that maps values to positions from `start` to `stop`."""

    def __init__(self, values: Sequence[float], start: float, stop: float, log: bool) -> None:
        self.log, self.start, self.stop = log, start, stop
        self.is_integer = all(float(value).is_integer() for value in values)  # ticks are whole numbers too
        low, high = min(values), max(values)
        if log:
            low, high = math.log10(low), math.log10(high)
            margin = 0.05 * max(high - low, 0.1)
        else:
            margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
        self.low, self.high = low - margin, high + margin
        if not log and low >= 0:
            self.low = max(self.low, 0.0)

    def position(self, value: float) -> float:
        """Return the position of a value."""
        value = math.log10(max(value, 1e-300)) if self.log else value
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> Ticks:
        """Return positions and labels of round values."""
        if self.log:
            values = [
                m * 10.0**e for e in range(math.floor(self.low), math.ceil(self.high) + 1) for m in (1, 2, 5)
            ]
            values = [value for value in values if self.low <= math.log10(value) <= self.high]
            if len(values) > 6:
                values = [value for value in values if f"{value:e}".startswith("1.0")] or values[::2]
        else:
            step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
            step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 5)
            step = max(step, 1.0) if self.is_integer else step
            values = [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(self.position(value), _short(value)) for value in values]


def _short(value: float) -> str:
    """Return the label of a tick."""
    for limit, unit, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / unit:g}{suffix}"
    return f"{value:.6g}" if abs(value) >= 1e-3 or value == 0 else number(value)
