"""A page as one self-contained HTML file: no network, light and dark, readable on a phone and on paper."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from bench.pages.blocks import Bar, Bars, Block, Details, Lines, Matrix, Page, Table, Text, Waterfall, number
from bench.pages.svg import chart
from preprocess.printable import printable

_KEY = (
    '<p class="key"><span class="ours"><i></i>ours</span> <span class="peer"><i></i>peers</span> '
    '<span class="floor"><i></i>floor: what the hardware could do</span> <span>whiskers: quartiles</span></p>'
)
WIDE, DENSE = 9, 20  # columns of a table, classes of a matrix, beyond which they are drawn smaller
_STYLE = Path(__file__).with_name("style.css")


def render(page: Page) -> str:
    """The file's text."""
    contents = "".join(f'<li><a href="#s{i}">{_(section.title)}</a></li>' for i, section in enumerate(page.sections))
    bars = any(isinstance(block, Bars) for section in page.sections for block in section.blocks)
    summary = "".join(f"<p>{_(sentence)}</p>" for sentence in page.summary)
    sections = "".join(
        f'<section id="s{i}"><h2>{_(section.title)}</h2>{_blocks(section.blocks)}</section>'
        for i, section in enumerate(page.sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{_(page.title)}</title><style>{_STYLE.read_text(encoding='utf-8')}</style></head>"
        f'<body><header><h1>{_(page.title)}</h1><div class="summary">{summary}</div><nav><ul>{contents}</ul></nav>'
        f"{_KEY if bars else ''}</header>"
        f"<main>{sections}</main></body></html>\n"
    )


def _blocks(blocks: Sequence[Block]) -> str:
    """Blocks in order; neighbouring charts stand side by side where there is room."""
    parts: list[str] = []
    charts: list[str] = []
    for block in (*blocks, None):
        if isinstance(block, Lines):
            charts.append(chart(block))
            continue
        if charts:
            parts.append(f'<div class="charts">{"".join(charts)}</div>')
            charts = []
        if block is not None:
            parts.append(_block(block))
    return "".join(parts)


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p{' class=strong' if block.strong else ''}>{_(block.text)}</p>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Bars):
        return _bars(block)
    if isinstance(block, Waterfall):
        return _waterfall(block)
    if isinstance(block, Matrix):
        return _matrix(block)
    if isinstance(block, Details):
        return f"<details><summary>{_(block.title)}</summary>{_blocks(block.blocks)}</details>"
    return chart(block)


def _table(table: Table) -> str:
    wide = len(table.head) > WIDE

    def text(cell: str) -> str:
        return _(cell).replace("_", "_<wbr>") if wide else _(cell)  # where a long name may be broken

    def row(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(f"<{tag}{' class=n' if i in table.numeric else ''}>{text(cell)}</{tag}>" for i, cell in enumerate(cells))
            + "</tr>"
        )

    caption = f"<caption>{_(table.caption)}</caption>" if table.caption else ""
    body = "".join(row(cells, "td") for cells in table.rows)
    kind = f' class="wide" style="--columns:{len(table.head)}"' if wide else ""
    return f'<div class="scroll"><table{kind}>{caption}<thead>{row(table.head, "th")}</thead><tbody>{body}</tbody></table></div>'


def _bars(bars: Bars) -> str:
    top = max((bar.high for bar in bars.bars), default=0) or 1.0
    return _figure(bars.title, bars.unit, [_bar(bar, top) for bar in bars.bars])


def _figure(title: str, note: str, bars: Sequence[str]) -> str:
    caption = f"<figcaption>{_(title)} <small>({_(note)})</small></figcaption>"
    return f'<figure class="bars">{caption}{"".join(bars)}</figure>'


def _bar(bar: Bar, top: float) -> str:
    low, high, end = (100 * value / top for value in (bar.low, bar.high, bar.value))
    spread = f'<i class="spread" style="left:{low:.2f}%;width:{max(0.0, high - low):.2f}%"></i>'
    return (
        f'<div class="bar {bar.role}"><span class="name">{_(bar.label)}</span>'
        f'<span class="track"><b style="width:{end:.2f}%"></b>{spread}</span><span class="value">{_(bar.note)}</span></div>'
    )


def _waterfall(waterfall: Waterfall) -> str:
    total = sum(value for _, value in waterfall.parts) or 1.0
    rows, start = [], 0.0
    for i, (name, value) in enumerate(waterfall.parts):
        left, width = 100 * start / total, 100 * value / total
        note = f"{number(value)} {waterfall.unit}, {width:.1f} %"
        rows.append(
            f'<div class="bar part"><span class="name">{_(name)}</span>'
            f'<span class="track"><b class="c{i % 8}" style="margin-left:{left:.2f}%;width:{width:.2f}%"></b></span>'
            f'<span class="value">{_(note)}</span></div>'
        )
        start += value
    return _figure(waterfall.title, f"{number(total)} {waterfall.unit}", rows)


def _matrix(matrix: Matrix) -> str:
    head = "".join(f'<th scope="col"><span>{_(name)}</span></th>' for name in matrix.names)
    dense = len(matrix.names) > DENSE
    rows = []
    for name, counts in zip(matrix.names, matrix.counts, strict=True):
        total = sum(counts) or 1
        cells = "".join(f'<td style="--share:{100 * count / total:.0f}%">{count or ""}</td>' for count in counts)
        rows.append(f'<tr><th scope="row">{_(name)}</th>{cells}</tr>')
    caption = f"{_(matrix.title)} <small>(rows: {_(matrix.rows)}; columns: {_(matrix.columns)})</small>"
    head = f"<thead><tr><td></td>{head}</tr></thead>"
    body = f"<caption>{caption}</caption>{head}<tbody>{''.join(rows)}</tbody>"
    kind = "matrix dense" if dense else "matrix"
    return f'<div class="scroll"><table class="{kind}" style="--classes:{len(matrix.names)}">{body}</table></div>'


def _(text: str) -> str:
    return html.escape(printable(str(text)))  # a name may hold marks that turn the direction of what follows
