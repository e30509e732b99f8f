"""Blocks of a report. `records`, `quality` and `runs` build them; `render` writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

COLOURS = 8  # CSS classes c0 to c7


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells; numeric columns are aligned right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()  # indices of columns
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """Bar from `start` with whiskers from `low` to `high` and a note."""

    label: str
    kind: str  # CSS classes: the role of a record, or `part` with a colour
    value: float
    note: str
    low: float = 0.0
    high: float = 0.0
    start: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bars:
    """Bars on one scale that starts at zero."""

    title: str
    unit: str
    bars: Sequence[Bar]

    @property
    def top(self) -> float:
        """End of the scale."""
        return max((max(bar.high, bar.start + bar.value) for bar in self.bars), default=0.0) or 1.0


@dataclasses.dataclass(frozen=True)
class Line:
    """Curve of (x, y) points with an optional band of (x, low, high)."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    dashed: bool = False
    stairs: bool = False  # constant until the next point


@dataclasses.dataclass(frozen=True)
class Lines:
    """Curves in one pair of axes."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: bool = False  # both axes
    mark: float | None = None  # x of a vertical line


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Counts by row and column, shaded by their fraction of the row."""

    title: str
    rows: str
    columns: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """Image with lines of text below it and an optional player."""

    source: str  # data URI
    lines: Sequence[str]
    audio: str = ""  # link of the sound; empty: no player


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    title: str
    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart that is drawn already."""

    title: str
    source: str  # data URI


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are hidden until the reader opens them."""

    title: str
    blocks: Sequence[Block]


Block = Text | Table | Bars | Lines | Matrix | Gallery | Chart | Details


@dataclasses.dataclass(frozen=True)
class Page:
    """Report: sentences of a summary, and blocks under headings."""

    title: str
    summary: Sequence[str]
    sections: Sequence[tuple[str, Sequence[Block]]]


def waterfall(title: str, unit: str, parts: Sequence[tuple[str, float]]) -> Bars:
    """Return the parts of a whole as bars, each of which starts at the end of the previous one.

    Args:
        title: Title of the chart.
        unit: Unit of the values.
        parts: Name and value of each part.
    """
    total = sum(value for _, value in parts) or 1.0
    bars, start = [], 0.0
    for i, (name, value) in enumerate(parts):
        note = f"{number(value)} {unit}, {100 * value / total:.1f} %"
        bars.append(Bar(name, f"part c{i % COLOURS}", value, note, start=start))
        start += value
    return Bars(title, f"{number(total)} {unit}", bars)


def number(value: float | None, digits: int = 3) -> str:
    """Return a value as text with thousands separators; – if it is None or NaN.

    Args:
        value: Number.
        digits: Significant digits.
    """
    if value is None or value != value:
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        rounded = float(f"{value:.{digits}g}") if size < 10 ** (digits + 2) else round(value, -2)
        return f"{rounded:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{float(text):.10f}".rstrip("0").rstrip(".") if "e" in text and size >= 1e-4 else text


def per_cent(value: float | None) -> str:
    """Return a fraction as a percentage; – if it is None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def plain(value: Any) -> str:
    """Return the value of a parameter as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return number(value) if isinstance(value, float) else str(value)
