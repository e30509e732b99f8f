"""What a report is made of. Builders (`records`, `quality`, `runs`) make blocks; `render` writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

COLOURS = 8  # classes c0 to c7 in the page's CSS


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells; columns of numbers are aligned right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()  # columns
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar from `start`, the whiskers from `low` to `high`, and the note beside it."""

    label: str
    kind: str  # CSS classes: a role of a record, or part with a colour
    value: float
    note: str
    low: float = 0.0
    high: float = 0.0
    start: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bars:
    """Bars on one scale from zero."""

    title: str
    unit: str
    bars: Sequence[Bar]

    @property
    def top(self) -> float:
        """The end of the scale."""
        return max((max(bar.high, bar.start + bar.value) for bar in self.bars), default=0.0) or 1.0


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve of (x, y) points, with a band (x, low, high) where it has one."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    dashed: bool = False
    stairs: bool = False  # the value holds until the next point


@dataclasses.dataclass(frozen=True)
class Lines:
    """Curves over one pair of axes."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: bool = False  # both axes
    mark: float | None = None  # a vertical line at this x


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Counts by row and column, shaded by their share of the row."""

    title: str
    rows: str
    columns: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that a reader opens when wanted."""

    title: str
    blocks: Sequence[Block]


Block = Text | Table | Bars | Lines | Matrix | Details


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report: one or two sentences of summary, then blocks under headings."""

    title: str
    summary: Sequence[str]
    sections: Sequence[tuple[str, Sequence[Block]]]


def waterfall(title: str, unit: str, parts: Sequence[tuple[str, float]]) -> Bars:
    """Parts of a whole as bars, each of which starts where the one before it ends."""
    total = sum(value for _, value in parts) or 1.0
    bars, start = [], 0.0
    for i, (name, value) in enumerate(parts):
        note = f"{number(value)} {unit}, {100 * value / total:.1f} %"
        bars.append(Bar(name, f"part c{i % COLOURS}", value, note, start=start))
        start += value
    return Bars(title, f"{number(total)} {unit}", bars)


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: three significant digits, thousands set apart."""
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
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def plain(value: Any) -> str:
    """A parameter's value for people."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return number(value) if isinstance(value, float) else str(value)
