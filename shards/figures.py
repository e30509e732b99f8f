"""Figures by matplotlib: fonts for names in any script, and PNG files that are written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from shardwave.shards.storage.atomic import write_bytes

# In this order, those that are there; what none of them has is drawn as the placeholder of its script.
FAMILIES = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Hiragino Sans",
    "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei", "Noto Sans Thai", "Last Resort High-Efficiency",
)  # fmt: skip


def prepare() -> None:
    """Let matplotlib's texts fall back through FAMILIES, and dollar signs be dollar signs, from now on."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    matplotlib.rcParams["text.parse_math"] = False
    matplotlib.rcParams["font.family"] = [name for name in FAMILIES if name in there]


def save(figure: Any, path: Path | str, dpi: float) -> None:
    """Write a figure that has a layout engine as a PNG file; folders above it are made."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # laid out: savefig would do it again, twice
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write(buffer, path)


def write(png: io.BytesIO, path: Path | str) -> None:
    """Write a PNG file; folders above it are made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(Path(path), png.getvalue())
