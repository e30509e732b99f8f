"""Searches replayed on recorded curves as blocks: best value over epochs and time with bands, regret, ranks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from shardwave.bench.report.blocks import Block, Details, Line, Lines, Table, Text, number

Row = dict[str, Any]
SHOWN = 6  # curves in a figure
HEAD = ("backend / sampler / scheduler", "mean rank", "regret", "quartiles", "simulated s", "seeds")
ABOUT = (
    "Only the training is looked up in a table of recorded learning curves; each backend's own samplers, schedulers and "
    "searchers decide, in simulated time. Bands: quartiles over the seeds. Regret: the table's best value minus the best "
    "value found. Rank: 1 is best, mean over seeds. “ray objects” are Ray's scheduler and searcher, called by this event "
    "loop in Tune's place."
)


def verdict(rows: Sequence[Row]) -> list[str]:
    """Per table: what ranks best over all numbers of workers, and random search beside it."""
    sentences = []
    for table in dict.fromkeys(row["params"]["table"] for row in rows):
        mine = [row for row in rows if row["params"]["table"] == table]
        ranks: dict[str, list[float]] = {}
        for row in mine:
            ranks.setdefault(_name(row), []).append(row["params"]["rank"])
        mean = {name: statistics.mean(values) for name, values in ranks.items()}
        best = min(mean, key=lambda name: mean[name])
        counts = ", ".join(str(count) for count in dict.fromkeys(row["params"]["workers"] for row in mine))
        chance = "random/random/none"
        plain = f"; {chance} ranks {number(mean[chance])}" if chance in mean else ""
        sentences.append(
            f"On {table}, {best} ranks best of {len(mean)} ({number(mean[best])} on average over {counts} workers){plain}."
        )
    return sentences


def quality(rows: Sequence[Row]) -> list[Block]:
    """One part per table and number of workers."""
    blocks: list[Block] = [Text(ABOUT)]
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["params"]["table"], row["params"]["workers"]), []).append(row)
    for (table, workers), mine in groups.items():
        mine.sort(key=lambda row: row["params"]["rank"])
        about = mine[0]["params"]
        title = f"{table}, {workers} worker{'s' * (workers != 1)}"
        shown = _shown(mine)
        for axis, name in (("epochs", "epochs spent"), ("seconds", "simulated seconds")):
            lines = [_best(row, axis) for row in shown]
            blocks.append(Lines(f"{title}: best value over {name}", name, "best value so far", lines))
        late = [_regret(row) for row in shown]
        blocks.append(Lines(f"{title}: regret, from a fifth of the epochs on", "epochs spent", "regret", late))
        caption = (
            f"{title}: {about['trainings']} x {about['epochs']} epochs to spend, {about['configurations']} configurations "
            f"recorded, best value {number(about['best'])}"
        )
        ranked = Table(HEAD, [_figures(row) for row in mine], (1, 2, 3, 4, 5), caption)
        blocks.append(Details(f"{title}: all {len(mine)}, ranked", [ranked]))
    return blocks


def _figures(row: Row) -> tuple[str, ...]:
    spread = f"{number(row['q1'])} to {number(row['q3'])}"
    rank, seconds = number(row["params"]["rank"]), number(row["params"]["seconds"])
    return (_name(row), rank, number(row["median"]), spread, seconds, str(row["n"]))


def _shown(ranked: Sequence[Row]) -> list[Row]:
    """The best of each backend, the baselines, then the best of what is left."""
    chosen = []
    for backend in ("optuna/", "ray objects/"):
        chosen += [row for row in ranked if _name(row).startswith(backend)][:1]
    chosen += [row for row in ranked if row["role"] == "peer"]
    chosen += [row for row in ranked if row not in chosen][: max(0, SHOWN - len(chosen))]
    return chosen


def _best(row: Row, axis: str) -> Line:
    points = row["params"]["over"][axis]
    curve = [(x, median) for x, _, median, _ in points if median > 0]
    band = [(x, low, high) for x, low, median, high in points if median > 0 and low > 0]
    return Line(_name(row), curve, band, dashed=row["role"] == "peer")


def _regret(row: Row) -> Line:
    points = row["params"]["over"]["epochs"]
    best, late = row["params"]["best"], [point for point in points if point[0] >= points[-1][0] / 5]
    curve = [(x, best - median) for x, _, median, _ in late]
    band = [(x, best - high, best - low) for x, low, _, high in late]
    return Line(_name(row), curve, band, dashed=row["role"] == "peer")


def _name(row: Row) -> str:
    return row["case"].split(": ", 1)[1]
