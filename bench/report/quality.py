"""Blocks of replayed searches: speed-up over random search, ranks, and regret over the budget."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, cast

from shardwave.bench.harness.record import MeasuredRow
from shardwave.bench.report.blocks import Bar, Bars, Block, Details, Line, Lines, Table, Text, number
from shardwave.bench.report.render import table as markdown_table
from shardwave.bench.search_quality.measures import Ranking, ranking


class QualityParams(TypedDict):
    """Parameters of a record of replayed searches; intervals are [low, median, high]."""

    table: str
    configurations: int
    workers: int
    epochs: int
    trainings: int
    rank: float
    scale: dict[str, float]  # accuracies of regret 0 ("best") and 1 ("first")
    regret: list[list[float]]  # [full trainings, low, median, high]
    test: list[float | None]  # accuracy; the middle value is the mean
    speed_up: list[float]
    speed_up_seconds: list[float]
    trials: float
    ask_ms: float
    seconds: float
    beaten_by: list[str]
    fixed: NotRequired[FixedParams]


class FixedParams(TypedDict):
    """Searches with a fixed number of trials."""

    trials: int
    regret: list[float]  # the middle value is the mean
    test: list[float | None]
    trainings: float  # mean number of epochs, in full trainings


SHOWN = 6  # curves in a figure
BUDGETS = (1, 2, 5, 10, 20, 50)  # full trainings, of the table of budgets
RANDOM = "random/random/none"
HEAD = (
    *("backend / sampler / scheduler", "mean rank", "regret", "95 %", "test accuracy", "speed-up, epochs"),
    *("95 %", "speed-up, time", "trials", "ms per decision", "seeds"),
)
ABOUT = (
    "Trainings are replaced by tables of recorded learning curves; the samplers, schedulers and searchers of "
    "each backend decide in simulated time. Regret 0 is the best validation accuracy of the table (the mean "
    "over five folds), 1 the median of the first trial of a random search. The speed-up is the cost of "
    "random search with its whole budget divided by the cost at which a strategy reaches the same accuracy, "
    "0 if half of its searches do not. Medians over the seeds with bootstrap intervals of 95 %; test "
    "accuracies are means, on clips that no strategy sees. “ray objects” are Ray's scheduler and searcher, "
    "called by the event loop of the replay instead of Tune. The simulated time does not contain the time of "
    "the decisions, which a column shows."
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
            ranks.setdefault(name_of(row), []).append(_params(row)["rank"])
        most = max(map(len, ranks.values()))
        mean = {name: statistics.mean(values) for name, values in ranks.items() if len(values) == most}
        best = min(mean, key=lambda name: mean[name])
        counts = ", ".join(str(count) for count in dict.fromkeys(_params(row)["workers"] for row in records))
        plain = f"; {RANDOM} ranks {number(mean[RANDOM])}" if RANDOM in mean else ""
        sentences.append(
            f"On {table}, {best} ranks best of {len(mean)} ({number(mean[best])} on average over {counts} "
            f"workers){plain}."
        )
    return sentences


def quality(rows: Sequence[MeasuredRow]) -> list[Block]:
    """Return the blocks of all tables and numbers of workers.

    Args:
        rows: Records of replayed searches.
    """
    blocks: list[Block] = [Text(ABOUT)]
    ranked = ranked_strategies(rows)
    if ranked is not None:
        bars = [Bar(name, "ours", rank, number(rank)) for name, rank in ranked.ranks.items()]
        blocks += [Text(ranking_text(ranked)), Bars("Mean rank, 1 is best", "rank", bars)]
    for (table, workers), records in groups_of(rows).items():
        records.sort(key=lambda row: _params(row)["rank"])
        params = _params(records[0])
        title = f"{table}, {workers} worker{'s' * (workers != 1)}"
        lines = [regret_line(row) for row in _shown(records)]
        blocks.append(Lines(f"{title}: regret", "full trainings spent", "regret", lines))
        caption = (
            f"{title}: {params['trainings']} x {params['epochs']} epochs to spend, "
            f"{params['configurations']} configurations recorded, best accuracy "
            f"{number(params['scale']['best'])}, first trial {number(params['scale']['first'])}"
        )
        cells = Table(HEAD, [_figures(row) for row in records], range(1, len(HEAD)), caption)
        blocks.append(Details(f"{title}: all {len(records)}, ranked", [cells]))
    return blocks


def groups_of(rows: Sequence[MeasuredRow]) -> dict[tuple[str, int], list[MeasuredRow]]:
    """Return the records by table and number of workers."""
    groups: dict[tuple[str, int], list[MeasuredRow]] = {}
    for row in rows:
        groups.setdefault((_params(row)["table"], _params(row)["workers"]), []).append(row)
    return groups


def ranked_strategies(rows: Sequence[MeasuredRow]) -> Ranking | None:
    """Rank the strategies that were replayed in all groups; None with fewer than three or one group."""
    groups = groups_of(rows).values()
    medians = [{name_of(row): row["median"] for row in records} for records in groups]
    common = [name for name in medians[0] if all(name in group for group in medians)] if medians else []
    if len(common) < 3 or len(medians) < 2:
        return None
    return ranking({name: [group[name] for group in medians] for name in common})


def ranking_text(ranked: Ranking) -> str:
    """Return the test of a ranking as a sentence."""
    return (
        f"Mean ranks of the median regret over {ranked.blocks} blocks (tables and numbers of workers). "
        f"Friedman's test that all are equal: p = {ranked.p:.2g}. Two strategies differ at 5 % if their "
        f"ranks differ by more than {ranked.critical:.1f} (Nemenyi); blocks of one table are not independent."
    )


def document_table(rows: Sequence[MeasuredRow], kind: str) -> str:
    """Return a Markdown table of `docs/search.md`.

    Args:
        rows: Records of replayed searches.
        kind: `speed-up`: speed-ups with one worker by table; `ranks`: mean ranks over all groups; `test`:
            test accuracies with one worker by table; `fixed`: regret of searches with a fixed number of
            trials, and their cost; `budgets`: regret with one worker at several budgets, mean over tables.
    """
    if kind == "ranks":
        ranked = ranked_strategies(rows)
        assert ranked is not None
        cells = [(name, number(rank)) for name, rank in ranked.ranks.items()]
        return f"{markdown_table(('strategy', 'mean rank'), cells, (1,))}\n\n{ranking_text(ranked)}"
    groups = {table: records for (table, workers), records in groups_of(rows).items() if workers == 1}
    by_name: dict[str, dict[str, QualityParams]] = {}
    for table, records in groups.items():
        for row in records:
            by_name.setdefault(name_of(row), {})[table] = _params(row)
    if kind == "budgets":
        return _budgets(by_name)
    if kind == "fixed":
        by_name = {
            name: found
            for name, found in by_name.items()
            if all("fixed" in params for params in found.values())
        }
    order = sorted(by_name, key=lambda name: statistics.mean(_order(p, kind) for p in by_name[name].values()))
    timed = kind == "speed-up"
    head = ("strategy", "mean regret" if kind == "fixed" else "mean rank", *groups)
    body = []
    for name in order:
        found = by_name[name]
        rank = statistics.mean(_order(params, kind) for params in found.values())
        values = [_cell(found[table], kind) if table in found else "" for table in groups]
        slowest = [number(max(params["ask_ms"] for params in found.values()), 2)] if timed else []
        body.append((name, number(rank), *values, *slowest))
    return markdown_table((*head, "ms per decision") if timed else head, body, range(1, len(head) + timed))


def _budgets(by_name: Mapping[str, Mapping[str, QualityParams]]) -> str:
    """Return the table of the regrets at BUDGETS of the strategies that have them on all tables."""
    rows: list[tuple[str, list[float]]] = []
    tables = max(map(len, by_name.values()))
    for name, found in by_name.items():
        curves = [{point: median for point, _, median, _ in params["regret"]} for params in found.values()]
        if len(curves) == tables and all(point in curve for curve in curves for point in BUDGETS):
            rows.append((name, [statistics.mean(curve[point] for curve in curves) for point in BUDGETS]))
    rows.sort(key=lambda row: row[1][BUDGETS.index(20)])
    cells = [(name, *(f"{value:.2f}" for value in values)) for name, values in rows]
    return markdown_table(("strategy", *map(str, BUDGETS)), cells, range(1, 1 + len(BUDGETS)))


def _order(params: QualityParams, kind: str) -> float:
    return params["fixed"]["regret"][1] if kind == "fixed" else params["rank"]


def _cell(params: QualityParams, kind: str) -> str:
    if kind == "test":
        low, middle, high = (None if value is None else 100 * value for value in params["test"])
        return f"{number(middle)} ({number(low)} – {number(high)})"
    least, median, most = params["fixed"]["regret"] if kind == "fixed" else params["speed_up"]
    text = f"{number(median, 2)} ({number(least, 2)} – {number(most, 2)})"
    return f"{text}; {number(params['fixed']['trainings'])}" if kind == "fixed" else text


def _figures(row: MeasuredRow) -> tuple[str, ...]:
    params = _params(row)
    _, low, median, high = next(row for row in reversed(params["regret"]) if row[0] <= params["trainings"])
    slow, speed, fast = params["speed_up"]
    test = params["test"][1]
    return (
        *(name_of(row), number(params["rank"]), number(median), f"{number(low)} to {number(high)}"),
        *(number(test), number(speed), f"{number(slow)} to {number(fast)}"),
        *(number(params["speed_up_seconds"][1]), number(params["trials"]), number(params["ask_ms"])),
        str(row["n"]),
    )


def _shown(ranked: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Return the best of each backend, the baseline, then the best of the others, up to SHOWN."""
    chosen: list[MeasuredRow] = []
    for backend in ("optuna/", "ray objects/", "syne-tune/"):
        chosen += [row for row in ranked if name_of(row).startswith(backend)][:1]
    chosen += [row for row in ranked if row["role"] == "baseline"]
    chosen += [row for row in ranked if row not in chosen][: max(0, SHOWN - len(chosen))]
    return chosen


def regret_line(row: MeasuredRow) -> Line:
    """Return the median regret over the budget as a line with its interval as a band."""
    points = _params(row)["regret"]
    curve = [(x, median) for x, _, median, _ in points]
    return Line(name_of(row), curve, [(x, low, high) for x, low, _, high in points], row["role"] != "ours")


def _params(row: MeasuredRow) -> QualityParams:
    return cast(QualityParams, row["params"])


def name_of(row: MeasuredRow) -> str:
    """Return the name of the strategy of a record."""
    return row["case"].split(": ", 1)[1]
