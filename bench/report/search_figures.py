"""Figures of `docs/search.md`, drawn from the records of replayed searches."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shardwave.bench.harness.record import MeasuredRow
from shardwave.bench.report.quality import BUDGETS, RANDOM, groups_of, name_of, ranked_strategies, regret_line
from shardwave.bench.search_quality.measures import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: Any = {
    "svg.hashsalt": "shardwave",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
}


SHOWN = 5  # strategies beside random search


def regret(rows: Sequence[MeasuredRow]) -> bytes:
    """Return the median regret with one worker over the budget as SVG, one panel per table.

    The strategies with the best mean ranks and random search are drawn.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = {table: records for (table, workers), records in groups_of(rows).items() if workers == 1}
    strategies = [*dict.fromkeys([*_ranked(rows).ranks][:SHOWN] + [RANDOM])]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.8), layout="constrained")
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (table, records) in zip(panels, groups.items(), strict=True):
            by_name = {name_of(row): row for row in records}
            for name in strategies:
                if name in by_name:
                    line = regret_line(by_name[name])
                    x, y = zip(*line.points, strict=True)
                    axes.plot(x, y, label=name, linestyle="--" if line.dashed else "-", linewidth=1.2)
                    _, low, high = zip(*line.band, strict=True)
                    axes.fill_between(x, low, high, alpha=0.15, linewidth=0)
            axes.set_xscale("log")
            axes.set_ylim(0, 1.5)
            axes.set_xticks(BUDGETS, list(map(str, BUDGETS)))
            axes.minorticks_off()
            axes.set_title(table, fontsize=9, loc="left")
            axes.set_xlabel("full trainings spent")
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("regret")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        return _svg(figure)


def ranks(rows: Sequence[MeasuredRow]) -> bytes:
    """Return the critical-difference diagram of the strategies that all groups have, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ranked = _ranked(rows)
    names, values = list(ranked.ranks), list(ranked.ranks.values())
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 0.8 + 0.19 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.scatter(values, range(len(names)), s=14, color="#2f6fb0", zorder=3)
        for row, value in enumerate(values):  # the strategies that do not differ from this one
            axes.plot([value, value + ranked.critical], [row, row], color="#b9bec6", linewidth=2)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.xaxis.tick_top()
        axes.set_xlabel(f"mean rank over {ranked.blocks} blocks; bar: critical difference (Nemenyi, 5 %)")
        axes.spines[["right", "bottom"]].set_visible(False)
        return _svg(figure)


def _ranked(rows: Sequence[MeasuredRow]) -> Ranking:
    ranked = ranked_strategies(rows)
    assert ranked is not None, "the figures need three strategies and two groups"
    return ranked


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    return buffer.getvalue()
