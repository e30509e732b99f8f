"""Bench records as blocks: the bottleneck in a sentence, where the time goes, bars per stage, scaling, environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.pages.blocks import Bar, Bars, Block, Details, Line, Lines, Section, Table, Text, Waterfall, number
from bench.record import LOWER_IS_BETTER

Row = dict[str, Any]
EPOCHS = 10  # of a training, in the sentence that names the bottleneck (the commands' default)
TITLES = {
    "decode": "Decoding",
    "preprocess": "Precompute: files to images",
    "features": "Tabular features",
    "writing": "Writing shards",
    "loading": "Loading batches",
    "transfer": "Transfer to the device",
    "training": "Training steps",
    "busy": "Training beside busy processes",
    "backbone": "Frozen backbone",
    "search": "Search",
    "scale": "Cost as work grows",
    "search-quality": "Search quality on recorded curves",
}


def summary(rows: Sequence[Row]) -> list[str]:
    """The bottleneck of a clip's way from file to a trained epoch, and what is farthest from its floor."""
    measured = [row for row in rows if not row["skipped"]]
    sentences = []
    way = _way(measured)
    if way:
        total = sum(seconds for _, _, seconds in way)
        name, row, seconds = max(way, key=lambda part: part[2])
        floor = f", at {number(row['of_floor'])} of what this machine can do there" if row["of_floor"] is not None else ""
        epochs = f" through {EPOCHS} epochs" if any(part[1]["params"]["way"]["when"] == "epoch" for part in way) else ""
        sentences.append(
            f"{name} is your bottleneck: {100 * seconds / total:.0f} % of the {number(1000 * total)} ms that a 30 s clip costs "
            f"from file{epochs}{floor}."
        )
    ours = [row for row in measured if row["role"] == "ours" and row["of_floor"] is not None and row["params"].get("way")]
    if ours:
        worst = min(ours, key=lambda row: row["of_floor"])
        where = f"{_stage(worst['stage'])}, {worst['case']}"
        sentences.append(f"Farthest from its floor: {where}, {number(worst['of_floor'])} of it.")
    replayed = [row for row in measured if row["stage"] == "search-quality"]
    if replayed:
        from bench.pages.quality import verdict

        sentences += verdict(replayed)
    skipped = sum(bool(row["skipped"]) for row in rows)
    if skipped:
        sentences.append(f"{skipped} of {len(rows)} cases were not run; the reasons are listed below.")
    return sentences


def sections(rows: Sequence[Row], prefix: str = "") -> list[Section]:
    """All sections for one file of records."""
    made = []
    time = _time(rows)
    if time:
        made.append(Section(prefix + "Where the time goes", time))
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for stage in stages:
        mine = [row for row in rows if row["stage"] == stage and not row["skipped"]]
        if not mine:
            continue
        if stage == "search-quality":
            from bench.pages.quality import quality

            blocks = quality(mine)
        elif stage == "scale":
            blocks = _scale(mine)
        else:
            blocks = [*_bars(mine), Details("All figures", [_figures(mine)])]
        made.append(Section(prefix + _stage(stage), blocks))
    left_out = [row for row in rows if row["skipped"]]
    if left_out:
        cells = [(row["stage"], row["case"], row["role"], row["skipped"]) for row in left_out]
        made.append(Section(prefix + "Not run", [Table(("stage", "case", "role", "reason"), cells)]))
    made.append(Section(prefix + "Environment", [environment([row["environment"] for row in rows])]))
    return made


def figure(row: Row) -> str:
    """A record's median for people, with its unit."""
    return f"{number(row['median'])} {row['unit']}"


def note(row: Row) -> str:
    """What stands beside a bar."""
    parts = [number(row["median"])]
    if row["params"].get("sample_bytes"):
        parts.append(f"{number(row['median'] * row['params']['sample_bytes'] / 1e9)} GB/s")
    if row["of_floor"] is not None and row["role"] != "floor":
        parts.append(f"{number(row['of_floor'], 2)} of floor")
    parts.append(f"n {row['n']}")
    return " · ".join(parts)


def environment(environments: Sequence[Row]) -> Table:
    """What it ran on; several values where it differs."""
    rows = []
    for key in ("machine", "cpu", "cores", "memory_gb", "cpu_capability", "gpu", "python", "commit"):
        values = list(dict.fromkeys(_plain(found.get(key)) for found in environments))
        rows.append((key.replace("_", " "), "; ".join(values)))
    dates = sorted(str(found.get("date")) for found in environments)
    rows.append(("date", dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"))
    versions = [", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items()) for found in environments]
    rows.append(("versions", "; ".join(dict.fromkeys(versions))))
    return Table(("", ""), rows)


def _stage(stage: str) -> str:
    return TITLES.get(stage, stage)


def _way(measured: Sequence[Row]) -> list[tuple[str, Row, float]]:
    """(step, record, seconds of a 30 s clip) for the records that stand for a step of its way; epochs count EPOCHS times."""
    found = []
    for row in measured:
        way = row["params"].get("way")
        if way:
            found.append((way["step"], row, way["work"] / row["median"] * (EPOCHS if way["when"] == "epoch" else 1)))
    return found


def _time(rows: Sequence[Row]) -> list[Block]:
    measured = [row for row in rows if not row["skipped"]]
    blocks: list[Block] = []
    way = _way(measured)
    if way:
        epochs = {"epoch": f", {EPOCHS} epochs", "once": ""}
        parts = [(name + epochs[row["params"]["way"]["when"]], 1000 * seconds) for name, row, seconds in way]
        blocks.append(Waterfall("A 30 s clip, eleven views, from file through training", "ms", parts))
    for row in measured:
        if row["params"].get("parts"):
            title = f"{row['params'].get('whole', _stage(row['stage']))}: {row['case']}"
            blocks.append(Waterfall(title, "s", list(row["params"]["parts"].items())))
    return blocks


def _bars(rows: Sequence[Row]) -> list[Block]:
    """Bars of one scale per group of cases that share a unit."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["params"].get("group", ""), row["unit"]), []).append(row)
    blocks: list[Block] = []
    for (group, unit), members in groups.items():
        order = {"ours": 0, "peer": 1, "floor": 2}
        bars = [
            Bar(row["case"].removeprefix(f"{group}: "), row["role"], row["median"], row["q1"], row["q3"], note(row))
            for row in sorted(members, key=lambda row: order[row["role"]])
        ]
        better = "less is better" if unit in LOWER_IS_BETTER else "more is better"
        blocks.append(Bars(group or "Measured", f"{unit}; {better}", bars))
    return blocks


def _figures(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        told = {key: value for key, value in row["params"].items() if key not in ("way", "parts", "whole", "group", "points")}
        floor = number(row["of_floor"], 3) if row["of_floor"] is not None else ""
        spread = f"{number(row['q1'])} to {number(row['q3'])}"
        about = ", ".join(f"{key} {_plain(value)}" for key, value in told.items())
        cells.append((row["case"], row["role"], number(row["median"]), spread, str(row["n"]), floor, row["unit"], about))
    return Table(("case", "role", "median", "quartiles", "n", "of floor", "unit", "parameters"), cells, (2, 3, 4, 5))


def _scale(rows: Sequence[Row]) -> list[Block]:
    blocks: list[Block] = []
    for axis, name in (("clips", "clips"), ("workers", "workers")):
        mine = [row for row in rows if row["params"].get("axis") == axis]
        lines = [
            Line(f"{row['case']}: exponent {number(row['median'])}", [(x, y) for x, y in row["params"]["points"]]) for row in mine
        ]
        if lines:
            blocks.append(Lines(f"Cost over {name}", name, mine[0]["params"]["measure"], lines, log=True))
    others = [row for row in rows if row["params"].get("axis") is None]
    if others:
        blocks += _bars(others)
    exponents = [row for row in rows if row["unit"] == "exponent"]
    if exponents:
        blocks.append(Text("Exponent 1: cost grows in step with the work; over workers, -1 would be a perfect speed-up."))
    return blocks


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, float):
        return number(value)
    return "unknown" if value is None else str(value)
