"""Blocks of bench records: bottleneck, parts of the time, bars of each stage, scaling, and environment."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shardwave.bench.harness import record
from shardwave.bench.harness.record import LOWER_IS_BETTER, ROLES, MeasuredRow, RecordRow
from shardwave.bench.report.blocks import (
    Bar,
    Bars,
    Block,
    Details,
    Line,
    Lines,
    Table,
    Text,
    number,
    plain,
    waterfall,
)
from shardwave.bench.report.quality import quality, verdict
from shardwave.common.environment import Environment

EPOCHS = 10  # epochs of a training in the sentence on the bottleneck; default of the commands
FAR = 3  # a limit more than this many times as long as the other bars is only in the table
TITLES = {
    "decode": "Decoding",
    "preprocess": "Precompute: files to images",
    "features": "Tabular features",
    "writing": "Writing shards",
    "loading": "Loading batches",
    "strips": "Strips beside views",
    "transfer": "Transfer to the device",
    "training": "Training steps",
    "busy": "Training beside busy processes",
    "backbone": "Frozen backbone",
    "export": "Exported models",
    "search": "Search",
    "scale": "Cost as work grows",
    "search-quality": "Search quality on recorded curves",
}
DRAWN = ("clip_step", "parts", "whole", "group", "points")  # parameters that are not listed in the table


def summary(rows: Sequence[RecordRow]) -> list[str]:
    """Return sentences on the bottleneck, the step farthest from its limit, searches and skipped cases.

    Args:
        rows: Records of one file.
    """
    measured = record.measured(rows)
    sentences = []
    steps = _clip_steps(measured)
    if steps:
        total = sum(seconds for _, _, seconds in steps)
        name, row, seconds = max(steps, key=lambda part: part[2])
        limit = (
            "" if row["of_limit"] is None else f", at {number(row['of_limit'])} of its limit on this machine"
        )
        epochs = (
            f" through {EPOCHS} epochs"
            if any(part[1]["params"]["clip_step"]["when"] == "epoch" for part in steps)
            else ""
        )
        sentences.append(
            f"{name} is your bottleneck: {100 * seconds / total:.0f} % of the {number(1000 * total)} ms that "
            f"a 30 s clip takes from file{epochs}{limit}."
        )
    ours = [
        row
        for row in measured
        if row["role"] == "ours" and row["of_limit"] is not None and row["params"].get("clip_step")
    ]
    if ours:
        worst = min(ours, key=lambda row: row["of_limit"] or 0.0)
        case = f"{TITLES.get(worst['stage'], worst['stage'])}, {worst['case']}"
        sentences.append(f"Farthest from its limit: {case}, {number(worst['of_limit'])} of it.")
    sentences += verdict([row for row in measured if row["stage"] == "search-quality"])
    if len(measured) < len(rows):
        skipped = f"{len(rows) - len(measured)} of {len(rows)} cases were skipped"
        sentences.append(f"{skipped}; the report lists the reasons.")
    return sentences


def sections(rows: Sequence[RecordRow]) -> list[tuple[str, Sequence[Block]]]:
    """Return the sections of one file of records.

    Args:
        rows: Records.
    """
    measured = record.measured(rows)
    skipped = [(row["stage"], row["case"], row["role"], row["skipped"]) for row in rows if row["skipped"]]
    named = [("Parts of the time", _time(measured))]
    for stage in dict.fromkeys(row["stage"] for row in measured):
        records = [row for row in measured if row["stage"] == stage]
        blocks = {"search-quality": quality, "scale": _scale}.get(stage, _measured)(records)
        named.append((TITLES.get(stage, stage), blocks))
    named.append(("Skipped", [Table(("stage", "case", "role", "reason"), skipped)] if skipped else []))
    named.append(("Environment", [environment([row["environment"] for row in rows])]))
    return [(title, blocks) for title, blocks in named if blocks]


def environment(environments: Sequence[Environment]) -> Table:
    """Return the table of the environment; different values are listed.

    Args:
        environments: Environments of the records.
    """
    rows = []
    for key in ("machine", "cpu", "cores", "memory_gb", "cpu_capability", "gpu", "python", "commit"):
        values = [one.get(key) for one in environments]
        names = dict.fromkeys("unknown" if value is None else plain(value) for value in values)
        rows.append((key.replace("_", " "), "; ".join(names)))
    dates = sorted({str(one.get("date")) for one in environments})
    rows.append(("date", " to ".join(dict.fromkeys((dates[0], dates[-1])))))
    versions = [
        ", ".join(f"{name} {version}" for name, version in one.get("versions", {}).items())
        for one in environments
    ]
    rows.append(("versions", "; ".join(dict.fromkeys(versions))))
    return Table(("", ""), rows)


def _clip_steps(measured: Sequence[MeasuredRow]) -> list[tuple[str, MeasuredRow, float]]:
    """Return step, record and seconds per clip of records with `clip_step`; an epoch counts EPOCHS times."""
    entries = [(row["params"]["clip_step"], row) for row in measured if row["params"].get("clip_step")]
    return [
        (entry["step"], row, entry["work"] / row["median"] * (EPOCHS if entry["when"] == "epoch" else 1))
        for entry, row in entries
    ]


def _time(measured: Sequence[MeasuredRow]) -> list[Block]:
    blocks: list[Block] = []
    steps = _clip_steps(measured)
    if steps:
        epochs = {"epoch": f", {EPOCHS} epochs", "once": ""}
        parts = [
            (name + epochs[row["params"]["clip_step"]["when"]], 1000 * seconds)
            for name, row, seconds in steps
        ]
        blocks.append(waterfall("A 30 s clip with eleven images, from file through training", "ms", parts))
    for row in measured:
        if row["params"].get("parts"):
            whole = row["params"].get("whole", TITLES.get(row["stage"], row["stage"]))
            blocks.append(waterfall(f"{whole}: {row['case']}", "s", list(row["params"]["parts"].items())))
    return blocks


def _measured(rows: Sequence[MeasuredRow]) -> list[Block]:
    return [*_bars(rows), Details("All figures", [_figures(rows)])]


def _bars(rows: Sequence[MeasuredRow]) -> list[Block]:
    """Return charts of bars, one for each group and unit."""
    groups: dict[tuple[str, str], list[Bar]] = {}
    for row in rows:
        group = row["params"].get("group", "")
        name = row["case"].removeprefix(f"{group}: ")
        bar = Bar(name, row["role"], row["median"], _note(row), row["q1"], row["q3"])
        groups.setdefault((group, row["unit"]), []).append(bar)
    blocks: list[Block] = []
    for (group, unit), bars in groups.items():
        longest = max((bar.value for bar in bars if bar.kind != "limit"), default=math.inf)
        bars = [bar for bar in bars if bar.kind != "limit" or bar.value <= FAR * longest]
        bars.sort(key=lambda bar: ROLES.index(bar.kind))
        better = "less is better" if unit in LOWER_IS_BETTER else "more is better"
        blocks.append(Bars(group or "Measured", f"{unit}; {better}", bars))
    return blocks


def _note(row: MeasuredRow) -> str:
    """Return the note of a bar."""
    parts = [number(row["median"])]
    if row["params"].get("sample_bytes"):
        parts.append(f"{number(row['median'] * row['params']['sample_bytes'] / 1e9)} GB/s")
    if row["of_limit"] is not None:
        parts.append(f"{number(row['of_limit'], 2)} of limit")
    return " · ".join([*parts, f"n {row['n']}"])


def _figures(rows: Sequence[MeasuredRow]) -> Table:
    cells = []
    for row in rows:
        params = ", ".join(
            f"{key} {plain(value)}" for key, value in row["params"].items() if key not in DRAWN
        )
        limit = "" if row["of_limit"] is None else number(row["of_limit"])
        spread = f"{number(row['q1'])} to {number(row['q3'])}"
        cells.append(
            (
                row["case"],
                row["role"],
                number(row["median"]),
                spread,
                str(row["n"]),
                limit,
                row["unit"],
                params,
            )
        )
    return Table(
        ("case", "role", "median", "quartiles", "n", "of limit", "unit", "parameters"), cells, (2, 3, 4, 5)
    )


def _scale(rows: Sequence[MeasuredRow]) -> list[Block]:
    blocks: list[Block] = []
    for axis in ("clips", "workers"):
        records = [row for row in rows if row["params"].get("axis") == axis]
        lines = [
            Line(
                f"{row['case']}: exponent {number(row['median'])}",
                [(x, y) for x, y in row["params"]["points"]],
            )
            for row in records
        ]
        if lines:
            blocks.append(Lines(f"Cost over {axis}", axis, records[0]["params"]["measure"], lines, log=True))
    blocks += _bars([row for row in rows if row["params"].get("axis") is None])
    if any(row["unit"] == "exponent" for row in rows):
        blocks.append(
            Text("Exponent 1 is cost proportional to the work; over workers, -1 is a perfect speed-up.")
        )
    return blocks
