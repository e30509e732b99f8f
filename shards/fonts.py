"""Fonts for names in any script: what DejaVu lacks is drawn in a font of this machine, or as the script's placeholder."""

from __future__ import annotations

FAMILIES = (  # in this order, those that are there
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
