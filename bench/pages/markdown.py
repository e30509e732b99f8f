"""The same page as Markdown, for a terminal or a pull request: charts become tables."""

from __future__ import annotations

from collections.abc import Sequence

from bench.pages.blocks import Bars, Block, Details, Lines, Matrix, Page, Table, Text, Waterfall, number

BAR = 24  # characters of the longest bar
POINTS = 8  # of a curve that are told


def render(page: Page) -> str:
    """The file's text."""
    parts = [f"# {page.title}", *page.summary]
    for section in page.sections:
        parts += [f"## {section.title}", *(_block(block) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A Markdown table."""
    rule = ["--:" if i in numeric else "---" for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in (head, rule, *rows)
    )


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f"**{block.text}**" if block.strong else block.text
    if isinstance(block, Table):
        return _titled(block.caption, table(block.head, block.rows, block.numeric))
    if isinstance(block, Bars):
        top = max((bar.value for bar in block.bars), default=0) or 1.0
        rows = [(bar.label, bar.role, _bar(bar.value / top), bar.note) for bar in block.bars]
        return _titled(f"{block.title} ({block.unit})", table(("", "", "", block.unit), rows))
    if isinstance(block, Waterfall):
        total = sum(value for _, value in block.parts) or 1.0
        rows = [(name, _bar(value / total), number(value), f"{100 * value / total:.1f} %") for name, value in block.parts]
        return _titled(f"{block.title} ({number(total)} {block.unit})", table(("part", "", block.unit, "share"), rows, (2, 3)))
    if isinstance(block, Lines):
        return _titled(f"{block.title} ({block.y} over {block.x})", _lines(block))
    if isinstance(block, Matrix):
        cells: list[Sequence[str]] = [(name, *map(str, counts)) for name, counts in zip(block.names, block.counts, strict=True)]
        head = (f"{block.rows} \\ {block.columns}", *block.names)
        return _titled(block.title, table(head, cells, range(1, len(head))))
    return "\n\n".join([f"### {block.title}", *(_block(inner) for inner in block.blocks)]) if isinstance(block, Details) else ""


def _lines(lines: Lines) -> str:
    """A few points of every curve."""
    rows = []
    for line in lines.lines:
        step = max(1, -(-len(line.points) // POINTS))
        chosen = list(line.points[::step])
        if line.points and chosen[-1] != line.points[-1]:
            chosen.append(line.points[-1])
        rows.append((line.name, ", ".join(f"{number(x)}: {number(y)}" for x, y in chosen)))
    return table(("", f"{lines.x}: {lines.y}"), rows)


def _titled(title: str, text: str) -> str:
    return f"**{title}**\n\n{text}" if title else text


def _bar(share: float) -> str:
    return "█" * max(1, round(BAR * share)) if share > 0 else ""
