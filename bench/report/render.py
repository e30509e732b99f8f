"""Rendering of a page as one self-contained HTML file or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from shardwave.bench.report.blocks import (
    Bars,
    Block,
    Chart,
    Details,
    Gallery,
    Lines,
    Matrix,
    Page,
    Table,
    Text,
    number,
)
from shardwave.bench.report.svg import plot
from shardwave.common.printable import printable

BAR = 24  # characters of the longest bar in Markdown
POINTS = 8  # points of a curve in Markdown


def html(page: Page) -> str:
    """Return the page as HTML, with control characters escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shardwave.bench.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(kind=lambda block: type(block).__name__, number=number, plot=plot)
    bars = [block for _, blocks in page.sections for block in blocks if isinstance(block, Bars)]
    key = any(bar.high for block in bars for bar in block.bars)  # whether to explain the colours
    return printable(environment.get_template("page.html").render(page=page, key=key))


def markdown(page: Page) -> str:
    """Return the page as Markdown, with charts as tables."""
    parts = [f"# {page.title}", *page.summary]
    for title, blocks in page.sections:
        parts += [f"## {title}", *map(_markdown, blocks)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """Return a Markdown table.

    Args:
        head: Names of the columns.
        rows: Cells.
        numeric: Indices of the columns to align right.
    """
    rule = ["--:" if i in numeric else "---" for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in (head, rule, *rows)
    )


def _markdown(block: Block) -> str:
    match block:
        case Text():
            return f"**{block.text}**" if block.strong else block.text
        case Details():
            return "\n\n".join([f"### {block.title}", *map(_markdown, block.blocks)])
        case Table():
            title, text = block.caption, table(block.head, block.rows, block.numeric)
        case Bars():
            bars = [
                (
                    bar.label,
                    "" if bar.kind.startswith("part") else bar.kind,
                    "█" * max(bar.value > 0, round(BAR * bar.value / block.top)),
                    bar.note,
                )
                for bar in block.bars
            ]
            title, text = f"{block.title} ({block.unit})", table(("", "", "", ""), bars)
        case Lines():
            lines = [
                (line.name, ", ".join(f"{number(x)}: {number(y)}" for x, y in _thinned(line.points)))
                for line in block.lines
            ]
            title, text = (
                f"{block.title} ({block.y} over {block.x})",
                table(("", f"{block.x}: {block.y}"), lines),
            )
        case Gallery():
            title, text = (
                block.title,
                "\n".join("- " + ", ".join(picture.lines) for picture in block.pictures),
            )
        case Chart():
            title, text = block.title, "Drawn on the HTML page."
        case Matrix():
            counts = [(name, *map(str, row)) for name, row in zip(block.names, block.counts, strict=True)]
            head = (f"{block.rows} \\ {block.columns}", *block.names)
            title, text = block.title, table(head, counts, range(1, len(head)))
    return f"**{title}**\n\n{text}" if title else text


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most POINTS points of a curve, and the last one."""
    chosen = list(points[:: max(1, -(-len(points) // POINTS))])
    return chosen if chosen[-1:] == list(points[-1:]) else [*chosen, points[-1]]
