"""`bench compare A B`: cases that are faster or slower in B than in A."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.harness.record import LOWER_IS_BETTER, read
from shardwave.bench.report.blocks import number
from shardwave.bench.report.render import table
from shardwave.common.errors import UsageError

SMALL = 0.03  # relative changes below this are noise
FEW, UNSURE = 3, 0.20  # with fewer than FEW repeats, changes below UNSURE are noise

Row = dict[str, Any]


def compare(before: Path | str, after: Path | str) -> dict[str, Any]:
    """Compare two files of records case by case.

    A case has changed if its interquartile ranges do not overlap and its median differs by more than 3 %, or 20 % if it has
    fewer than three repeats. The ratio is the speed in `after` divided by the speed in `before`.

    Args:
        before: File of records, or its folder.
        after: File of records, or its folder.

    Returns:
        The comparison as Markdown (`text`), the changes by verdict (`faster`, `slower`, `same`), the cases of one file only
        (`only_before`, `only_after`), and reasons for doubt (`notes`).

    Raises:
        UsageError: The files have no measured case in common.
    """
    old, new = _measured(before), _measured(after)
    shared = [key for key in old if key in new]
    if not shared:
        raise UsageError(f"{before} and {after} have no case in common: compare records of the same stages")
    changes = [
        {"stage": key[0], "case": key[1], "unit": key[2], **change(old[key], new[key])} for key in shared
    ]
    comparison: dict[str, Any] = {
        name: sorted(
            (one for one in changes if one["verdict"] == name),
            key=lambda one: one["ratio"],
            reverse=name == "faster",
        )
        for name in ("faster", "slower", "same")
    }
    comparison["only_before"] = [" / ".join(key) for key in old if key not in new]
    comparison["only_after"] = [" / ".join(key) for key in new if key not in old]
    comparison["notes"] = _notes(old, new, changes)
    comparison["text"] = _text(before, after, comparison)
    return comparison


def change(old: Row, new: Row) -> dict[str, Any]:
    """Return the change of a case: medians, ratio of the speeds, verdict (faster, slower, same) and role.

    Args:
        old: Record before.
        new: Record after.
    """
    lower = old["unit"] in LOWER_IS_BETTER
    ratio = old["median"] / new["median"] if lower else new["median"] / old["median"]
    apart = old["q3"] < new["q1"] or new["q3"] < old["q1"]
    least = SMALL if min(old["n"], new["n"]) >= FEW else UNSURE
    moved = apart and max(ratio, 1 / ratio) > 1 + least
    verdict = "same" if not moved else "faster" if ratio > 1 else "slower"
    return {
        "before": old["median"],
        "after": new["median"],
        "ratio": ratio,
        "verdict": verdict,
        "role": new["role"],
    }


def _measured(path: Path | str) -> dict[tuple[str, str, str], Row]:
    rows = {
        (row["stage"], row["case"], row["unit"]): row
        for row in read(path)
        if not row["skipped"] and row["median"]
    }
    if not rows:
        raise UsageError(
            f"{path} holds no measured case, all were skipped or the run was interrupted: measure again"
        )
    return rows


def _notes(old: dict, new: dict, changes: Sequence[Row]) -> list[str]:
    """Reasons to doubt the comparison."""
    notes = []
    first, second = next(iter(old.values()))["environment"], next(iter(new.values()))["environment"]
    different = [key for key in ("cpu", "cores", "gpu") if first.get(key) != second.get(key)]
    if different:
        values = ", ".join(f"{key} {first.get(key)} and {second.get(key)}" for key in different)
        notes.append(f"The machines differ ({values}): compare the fractions of the limit, not the rates.")
    references = [one for one in changes if one["role"] in ("baseline", "limit") and one["verdict"] != "same"]
    if references:
        examples = "; ".join(f"{one['case']} x{one['ratio']:.2f}" for one in references[:4])
        notes.append(
            f"{len(references)} baselines or limits changed ({examples}): the machine may be the reason."
        )
    return notes


def _text(before: Path | str, after: Path | str, comparison: dict[str, Any]) -> str:
    parts = [f"# {before} → {after}", *comparison["notes"]]
    for name in ("slower", "faster"):
        rows = [
            (
                one["stage"],
                one["case"],
                f"{number(one['before'])} → {number(one['after'])} {one['unit']}",
                f"x{one['ratio']:.2f}",
            )
            for one in comparison[name]
        ]
        shown = table(("stage", "case", "median", "speed"), rows) if rows else "None."
        parts.append(f"## {name.capitalize()} ({len(rows)})\n\n{shown}")
    same = [one["case"] for one in comparison["same"]]
    parts.append(f"## Within noise ({len(same)})\n\n{', '.join(same) or 'None.'}")
    for name, label in (("only_before", "Only before"), ("only_after", "Only after")):
        if comparison[name]:
            parts.append(f"## {label} ({len(comparison[name])})\n\n" + ", ".join(comparison[name]))
    return "\n\n".join(parts)
