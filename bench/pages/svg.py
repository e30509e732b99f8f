"""Line charts as inline SVG: 360 units wide, so that text stays readable on a phone; colours come from the page's CSS."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import pairwise

from bench.pages.blocks import Line, Lines, number
from preprocess.printable import printable

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 34  # margins of the plot
COLOURS = 8  # classes c0 to c7 in the page's CSS


def chart(lines: Lines) -> str:
    """An <svg> element with axes, bands, curves and a legend below."""
    xs = [x for line in lines.lines for x, _ in line.points]
    ys = [y for line in lines.lines for _, y in line.points]
    ys += [edge for line in lines.lines for _, low, high in line.band for edge in (low, high)]
    if lines.log:
        xs, ys = [x for x in xs if x > 0], [y for y in ys if y > 0]
    if not xs or not ys:
        return ""
    horizontal, vertical = _Axis(xs, LEFT, WIDTH - RIGHT, lines.log), _Axis(ys, HEIGHT - BOTTOM, TOP, lines.log)
    drawn = [_axes(lines, horizontal, vertical)]
    if lines.mark is not None:
        x = horizontal.place(lines.mark)
        drawn.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for i, line in enumerate(lines.lines):
        drawn += _curve(line, i % COLOURS, horizontal, vertical, lines.log)
    legend = "".join(
        f'<span><i class="k c{i % COLOURS}{" dash" if line.dashed else ""}"></i>{html.escape(printable(line.name))}</span>'
        for i, line in enumerate(lines.lines)
    )
    title = html.escape(printable(lines.title))
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(drawn)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def _curve(line: Line, colour: int, horizontal: _Axis, vertical: _Axis, log: bool) -> list[str]:
    drawn = []
    if line.band:
        there = [f"{horizontal.place(x):.1f},{vertical.place(high):.1f}" for x, _, high in line.band]
        back = [f"{horizontal.place(x):.1f},{vertical.place(low):.1f}" for x, low, _ in reversed(line.band)]
        drawn.append(f'<polygon class="band c{colour}" points="{" ".join(there + back)}"/>')
    points = [(x, y) for x, y in line.points if not log or (x > 0 and y > 0)]
    corners = points
    if line.stairs:
        corners = points[:1] + [corner for (_, y), (x, after) in pairwise(points) for corner in ((x, y), (x, after))]
    path = " ".join(f"{horizontal.place(x):.1f},{vertical.place(y):.1f}" for x, y in corners)
    drawn.append(f'<polyline class="line c{colour}{" dash" if line.dashed else ""}" points="{path}"/>')
    if len(points) <= 12:
        drawn += [
            f'<circle class="dot c{colour}" cx="{horizontal.place(x):.1f}" cy="{vertical.place(y):.1f}" r="2.5"/>'
            for x, y in points
        ]
    return drawn


def _axes(lines: Lines, horizontal: _Axis, vertical: _Axis) -> str:
    drawn = []
    for value in vertical.ticks():
        y = vertical.place(value)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 4}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in horizontal.ticks():
        x = horizontal.place(value)
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{_short(value)}</text>')
    drawn.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(lines.x)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    drawn.append(
        f'<text x="10" y="{middle}" text-anchor="middle" transform="rotate(-90 10 {middle})">{html.escape(lines.y)}</text>'
    )
    return "".join(drawn)


class _Axis:
    """Values to positions, from `start` to `stop`."""

    def __init__(self, values: Sequence[float], start: float, stop: float, log: bool) -> None:
        self.log = log
        self.whole = all(float(value).is_integer() for value in values)  # then so are the ticks
        low, high = min(values), max(values)
        if log:
            self.low, self.high = math.log10(low), math.log10(high)
            margin = 0.05 * max(self.high - self.low, 0.1)
        else:
            self.low, self.high = low, high
            margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
        self.low, self.high = self.low - margin, self.high + margin
        if not log and low >= 0:
            self.low = max(self.low, 0.0)
        self.start, self.stop = start, stop

    def place(self, value: float) -> float:
        value = math.log10(max(value, 1e-300)) if self.log else value
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values that lie on the axis."""
        if self.log:
            found = [m * 10.0**e for e in range(math.floor(self.low), math.ceil(self.high) + 1) for m in (1, 2, 5)]
            found = [value for value in found if self.low <= math.log10(value) <= self.high]
            return found if len(found) <= 6 else [value for value in found if f"{value:e}".startswith("1.0")] or found[::2]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 5)
        step = max(step, 1.0) if self.whole else step
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _short(value: float) -> str:
    """A tick's label."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):g}{suffix}"
    return f"{value:.6g}" if abs(value) >= 1e-3 or value == 0 else number(value)
