"""Matplotlib figures: fonts for names in any script, and atomically written PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from shardwave.shards.storage.atomic import write_bytes

# In the order of preference. The last one draws a placeholder for characters that no other font has.
FAMILIES = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC",
    "Noto Sans KR", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei",
    "Noto Sans Thai", "Last Resort High-Efficiency",
)  # fmt: skip


def prepare() -> None:
    """Configure matplotlib: use the installed fonts of FAMILIES and print dollar signs as they are."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    matplotlib.rcParams["text.parse_math"] = False
    matplotlib.rcParams["font.family"] = [name for name in FAMILIES if name in installed]


def save(figure: Any, path: Path | str, dpi: float) -> None:
    """Write a figure to a PNG file, and create its parent folders.

    Args:
        figure: A matplotlib figure that has a layout engine.
        path: The file.
        dpi: Resolution in dots per inch.
    """
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # otherwise savefig repeats the layout twice
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write(buffer, path)


def write(png: io.BytesIO, path: Path | str) -> None:
    """Write the bytes of a PNG file, and create its parent folders."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(Path(path), png.getvalue())
