"""Blocks of replayed searches: best value over epochs and time with bands, regret, and ranks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict, cast

from shardwave.bench.harness.record import MeasuredRow
from shardwave.bench.report.blocks import Block, Details, Line, Lines, Table, Text, number


class QualityParams(TypedDict):
    """Parameters of a record of replayed searches."""

    table: str
    configurations: int
    best: float
    workers: int
    epochs: int
    trainings: int
    seeds: int
    rank: float
    over: dict[str, list[list[float]]]  # [point, q1, median, q3] by axis, "epochs" or "seconds"
    seconds: float


SHOWN = 6  # curves in a figure
HEAD = ("backend / sampler / scheduler", "mean rank", "regret", "quartiles", "simulated s", "seeds")
ABOUT = (
    "Trainings are replaced by a table of recorded learning curves; the samplers, schedulers and searchers "
    "of each backend run in simulated time. Bands are quartiles over the seeds. Regret is the best value of "
    "the table minus the best value of the search. Rank 1 is best; ranks are means over the seeds. “ray "
    "objects” are Ray's scheduler and searcher, called by the event loop of the replay instead of Tune."
)


def verdict(rows: Sequence[MeasuredRow]) -> list[str]:
    """Return a sentence per table: the best mean rank over all numbers of workers, and that of random search.

    Args:
        rows: Records of replayed searches.
    """
    sentences = []
    for table in dict.fromkeys(_params(row)["table"] for row in rows):
        records = [row for row in rows if _params(row)["table"] == table]
        ranks: dict[str, list[float]] = {}
        for row in records:
            ranks.setdefault(_name(row), []).append(_params(row)["rank"])
        mean = {name: statistics.mean(values) for name, values in ranks.items()}
        best = min(mean, key=lambda name: mean[name])
        counts = ", ".join(str(count) for count in dict.fromkeys(_params(row)["workers"] for row in records))
        chance = "random/random/none"
        plain = f"; {chance} ranks {number(mean[chance])}" if chance in mean else ""
        sentences.append(
            f"On {table}, {best} ranks best of {len(mean)} ({number(mean[best])} on average over {counts} "
            f"workers){plain}."
        )
    return sentences


def quality(rows: Sequence[MeasuredRow]) -> list[Block]:
    """Return the blocks of every table and number of workers.

    Args:
        rows: Records of replayed searches.
    """
    blocks: list[Block] = [Text(ABOUT)]
    groups: dict[tuple[str, int], list[MeasuredRow]] = {}
    for row in rows:
        groups.setdefault((_params(row)["table"], _params(row)["workers"]), []).append(row)
    for (table, workers), records in groups.items():
        records.sort(key=lambda row: _params(row)["rank"])
        params = _params(records[0])
        title = f"{table}, {workers} worker{'s' * (workers != 1)}"
        shown = _shown(records)
        for axis, name in (("epochs", "epochs spent"), ("seconds", "simulated seconds")):
            lines = [_best(row, axis) for row in shown]
            blocks.append(Lines(f"{title}: best value over {name}", name, "best value so far", lines))
        late = [_regret(row) for row in shown]
        blocks.append(
            Lines(f"{title}: regret, from a fifth of the epochs on", "epochs spent", "regret", late)
        )
        caption = (
            f"{title}: {params['trainings']} x {params['epochs']} epochs to spend, "
            f"{params['configurations']} configurations recorded, best value {number(params['best'])}"
        )
        ranked = Table(HEAD, [_figures(row) for row in records], (1, 2, 3, 4, 5), caption)
        blocks.append(Details(f"{title}: all {len(records)}, ranked", [ranked]))
    return blocks


def _figures(row: MeasuredRow) -> tuple[str, ...]:
    spread = f"{number(row['q1'])} to {number(row['q3'])}"
    rank, seconds = number(_params(row)["rank"]), number(_params(row)["seconds"])
    return (_name(row), rank, number(row["median"]), spread, seconds, str(row["n"]))


def _shown(ranked: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Return the best of each backend, the baselines, then the best of the others, up to SHOWN."""
    chosen = []
    for backend in ("optuna/", "ray objects/"):
        chosen += [row for row in ranked if _name(row).startswith(backend)][:1]
    chosen += [row for row in ranked if row["role"] == "peer"]
    chosen += [row for row in ranked if row not in chosen][: max(0, SHOWN - len(chosen))]
    return chosen


def _best(row: MeasuredRow, axis: str) -> Line:
    points = _params(row)["over"][axis]
    curve = [(x, median) for x, _, median, _ in points if median > 0]
    band = [(x, low, high) for x, low, median, high in points if median > 0 and low > 0]
    return Line(_name(row), curve, band, dashed=row["role"] == "peer")


def _regret(row: MeasuredRow) -> Line:
    points = _params(row)["over"]["epochs"]
    best, late = _params(row)["best"], [point for point in points if point[0] >= points[-1][0] / 5]
    curve = [(x, best - median) for x, _, median, _ in late]
    band = [(x, best - high, best - low) for x, low, _, high in late]
    return Line(_name(row), curve, band, dashed=row["role"] == "peer")


def _params(row: MeasuredRow) -> QualityParams:
    return cast(QualityParams, row["params"])


def _name(row: MeasuredRow) -> str:
    return row["case"].split(": ", 1)[1]
