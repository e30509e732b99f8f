"""`bench compare A B`: cases that are faster or slower in B than in A."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from shardwave.bench.harness.record import LOWER_IS_BETTER, MeasuredRow, measured, read
from shardwave.bench.report.blocks import number
from shardwave.bench.report.render import table
from shardwave.common.errors import UsageError

SMALL = 0.03  # relative changes below this are noise
FEW, UNSURE = 3, 0.20  # with fewer than FEW repeats, changes below UNSURE are noise


class Change(TypedDict):
    """Change of a case: medians, ratio of the speeds, verdict and role."""

    before: float
    after: float
    ratio: float
    verdict: Literal["faster", "slower", "same"]
    role: str


class CaseChange(Change):
    """Change of a named case."""

    stage: str
    case: str
    unit: str


class Comparison(TypedDict):
    """Comparison of two files of records, see `compare`."""

    faster: list[CaseChange]
    slower: list[CaseChange]
    same: list[CaseChange]
    only_before: list[str]
    only_after: list[str]
    notes: list[str]
    text: str


Measured = dict[tuple[str, str, str], MeasuredRow]  # by stage, case and unit


def compare(before: Path | str, after: Path | str) -> Comparison:
    """Compare two files of records case by case.

    A case has changed if its interquartile ranges do not overlap and its median differs by more than 3 %, or
    20 % if it has fewer than three repeats. The ratio is the speed in `after` divided by the speed in
    `before`.

    Args:
        before: File of records, or its folder.
        after: File of records, or its folder.

    Returns:
        The comparison as Markdown (`text`), the changes by verdict (`faster`, `slower`, `same`), the cases of
        one file only (`only_before`, `only_after`), and reasons for doubt (`notes`).

    Raises:
        UsageError: The files have no measured case in common.
    """
    old, new = _measured(before), _measured(after)
    shared = [key for key in old if key in new]
    if not shared:
        raise UsageError(f"{before} and {after} have no case in common: compare records of the same stages")
    changes: list[CaseChange] = [
        {"stage": key[0], "case": key[1], "unit": key[2], **change(old[key], new[key])} for key in shared
    ]
    changes.sort(key=lambda one: one["ratio"])
    comparison: Comparison = {
        "faster": [one for one in reversed(changes) if one["verdict"] == "faster"],
        "slower": [one for one in changes if one["verdict"] == "slower"],
        "same": [one for one in changes if one["verdict"] == "same"],
        "only_before": [" / ".join(key) for key in old if key not in new],
        "only_after": [" / ".join(key) for key in new if key not in old],
        "notes": _notes(old, new, changes),
        "text": "",
    }
    comparison["text"] = _text(before, after, comparison)
    return comparison


def change(old: MeasuredRow, new: MeasuredRow) -> Change:
    """Return the change of a case: medians, ratio of the speeds, verdict (faster, slower, same) and role.

    Args:
        old: Record before.
        new: Record after.
    """
    lower = old["unit"] in LOWER_IS_BETTER
    ratio = old["median"] / new["median"] if lower else new["median"] / old["median"]
    apart = old["q3"] < new["q1"] or new["q3"] < old["q1"]
    least = SMALL if min(old["n"], new["n"]) >= FEW else UNSURE
    is_different = apart and max(ratio, 1 / ratio) > 1 + least
    verdict: Literal["faster", "slower", "same"] = (
        "same" if not is_different else "faster" if ratio > 1 else "slower"
    )
    return {
        "before": old["median"],
        "after": new["median"],
        "ratio": ratio,
        "verdict": verdict,
        "role": new["role"],
    }


def _measured(path: Path | str) -> Measured:
    rows = {(row["stage"], row["case"], row["unit"]): row for row in measured(read(path)) if row["median"]}
    if not rows:
        raise UsageError(
            f"{path} holds no measured case, all were skipped or the run was interrupted: measure again"
        )
    return rows


def _notes(old: Measured, new: Measured, changes: Sequence[CaseChange]) -> list[str]:
    """Return reasons to doubt the comparison."""
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


def _text(before: Path | str, after: Path | str, comparison: Comparison) -> str:
    parts = [f"# {before} → {after}", *comparison["notes"]]
    for name, changes in (("slower", comparison["slower"]), ("faster", comparison["faster"])):
        rows = [
            (
                one["stage"],
                one["case"],
                f"{number(one['before'])} → {number(one['after'])} {one['unit']}",
                f"x{one['ratio']:.2f}",
            )
            for one in changes
        ]
        shown = table(("stage", "case", "median", "speed"), rows) if rows else "None."
        parts.append(f"## {name.capitalize()} ({len(rows)})\n\n{shown}")
    same = [one["case"] for one in comparison["same"]]
    parts.append(f"## Within noise ({len(same)})\n\n{', '.join(same) or 'None.'}")
    for label, cases in (
        ("Only before", comparison["only_before"]),
        ("Only after", comparison["only_after"]),
    ):
        if cases:
            parts.append(f"## {label} ({len(cases)})\n\n" + ", ".join(cases))
    return "\n\n".join(parts)
