"""What a report is made of. Builders make blocks, renderers write them; neither knows the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `strong` for the summary."""

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
    """One bar: a median, its quartiles, and what is said beside it."""

    label: str
    role: str  # ours, peer, floor
    value: float
    low: float
    high: float
    note: str


@dataclasses.dataclass(frozen=True)
class Bars:
    """Bars on one scale from zero."""

    title: str
    unit: str
    bars: Sequence[Bar]


@dataclasses.dataclass(frozen=True)
class Waterfall:
    """Parts of a whole, one after another, in `unit`."""

    title: str
    unit: str
    parts: Sequence[tuple[str, float]]


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
    """Blocks that a reader opens when wanted (always open on paper)."""

    title: str
    blocks: Sequence[Block]


Block = Text | Table | Bars | Waterfall | Lines | Matrix | Details


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    summary: Sequence[str]  # one or two sentences that a hurried reader takes away
    sections: Sequence[Section]


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
