"""`bench compare A B`: what became faster or slower from A to B, and what is within noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.harness.record import LOWER_IS_BETTER, read
from shardwave.bench.report.blocks import number
from shardwave.bench.report.render import table
from shardwave.common.errors import UsageError

SMALL = 0.03  # changes below this are noise whatever the spread
FEW, UNSURE = 3, 0.20  # a case repeated fewer than FEW times must change by more than UNSURE to count

Row = dict[str, Any]


def compare(before: Path | str, after: Path | str) -> dict[str, Any]:
    """Compare two files (or folders) of records case by case.

    A case changed when its quartile ranges lie apart and its median moved by more than 3 % (20 % where either side has fewer
    than three repeats); the ratio says how many times as fast it is in `after`. Returns {text (Markdown), faster, slower, same,
    only_before, only_after, notes}.
    """
    old, new = _measured(before), _measured(after)
    shared = [key for key in old if key in new]
    if not shared:
        raise UsageError(f"{before} and {after} have no case in common: compare records of the same stages")
    changes = [{"stage": key[0], "case": key[1], "unit": key[2], **change(old[key], new[key])} for key in shared]
    found: dict[str, Any] = {
        name: sorted((one for one in changes if one["verdict"] == name), key=lambda one: one["ratio"], reverse=name == "faster")
        for name in ("faster", "slower", "same")
    }
    found["only_before"] = [" / ".join(key) for key in old if key not in new]
    found["only_after"] = [" / ".join(key) for key in new if key not in old]
    found["notes"] = _notes(old, new, changes)
    found["text"] = _text(before, after, found)
    return found


def change(old: Row, new: Row) -> dict[str, Any]:
    """How a case changed: medians before and after, ratio (2 = twice as fast), verdict (faster, slower, same)."""
    lower = old["unit"] in LOWER_IS_BETTER
    ratio = old["median"] / new["median"] if lower else new["median"] / old["median"]
    apart = old["q3"] < new["q1"] or new["q3"] < old["q1"]
    least = SMALL if min(old["n"], new["n"]) >= FEW else UNSURE
    moved = apart and max(ratio, 1 / ratio) > 1 + least
    verdict = "same" if not moved else "faster" if ratio > 1 else "slower"
    return {"before": old["median"], "after": new["median"], "ratio": ratio, "verdict": verdict, "role": new["role"]}


def _measured(path: Path | str) -> dict[tuple[str, str, str], Row]:
    rows = {(row["stage"], row["case"], row["unit"]): row for row in read(path) if not row["skipped"] and row["median"]}
    if not rows:
        raise UsageError(f"{path} holds no measured case: every one was skipped, or the run was interrupted")
    return rows


def _notes(old: dict, new: dict, changes: Sequence[Row]) -> list[str]:
    """What makes the comparison doubtful."""
    notes = []
    first, second = next(iter(old.values()))["environment"], next(iter(new.values()))["environment"]
    different = [key for key in ("cpu", "cores", "gpu") if first.get(key) != second.get(key)]
    if different:
        told = ", ".join(f"{key} {first.get(key)} and {second.get(key)}" for key in different)
        notes.append(f"The machines differ ({told}): compare the fractions of the limit, not the rates.")
    references = [one for one in changes if one["role"] in ("baseline", "limit") and one["verdict"] != "same"]
    if references:
        examples = "; ".join(f"{one['case']} x{one['ratio']:.2f}" for one in references[:4])
        notes.append(f"{len(references)} baselines or limits changed ({examples}): the machine may be the reason.")
    return notes


def _text(before: Path | str, after: Path | str, found: dict[str, Any]) -> str:
    parts = [f"# {before} → {after}", *found["notes"]]
    for name in ("slower", "faster"):
        rows = [
            (one["stage"], one["case"], f"{number(one['before'])} → {number(one['after'])} {one['unit']}", f"x{one['ratio']:.2f}")
            for one in found[name]
        ]
        shown = table(("stage", "case", "median", "speed"), rows) if rows else "None."
        parts.append(f"## {name.capitalize()} ({len(rows)})\n\n{shown}")
    same = [one["case"] for one in found["same"]]
    parts.append(f"## Within noise ({len(same)})\n\n{', '.join(same) or 'None.'}")
    for name, label in (("only_before", "Only before"), ("only_after", "Only after")):
        if found[name]:
            parts.append(f"## {label} ({len(found[name])})\n\n" + ", ".join(found[name]))
    return "\n\n".join(parts)
