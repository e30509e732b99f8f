"""Goals of the GPU path on an H200, and whether records meet them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shardwave.bench.gpu import cases

Rows = Sequence[Mapping[str, Any]]


class Goal(NamedTuple):
    """A goal and its check, which returns (is met, measured value), or None without a measurement."""

    text: str
    check: Callable[[Rows], tuple[bool, str] | None]


def verdict(rows: Rows) -> list[tuple[str, str, str]]:
    """Return the text, the state (`met`, `not met`, `not measured`) and the measured value of each goal.

    Args:
        rows: Records of a run of `bench gpu-check`.
    """
    lines = []
    for goal in GOALS:
        checked = goal.check([row for row in rows if not row["skipped"]])
        state = "not measured" if checked is None else "met" if checked[0] else "not met"
        lines.append((goal.text, state, "" if checked is None else checked[1]))
    return lines


def _matching(rows: Rows, stage: str, start: str, *parts: str) -> list[Mapping[str, Any]]:
    """Return the rows of a stage whose case begins with `start` and contains all `parts`."""
    return [
        row
        for row in rows
        if row["stage"] == stage
        and row["case"].startswith(start)
        and all(part in row["case"] for part in parts)
    ]


def _best_build(rows: Rows, name: str, place: str) -> Mapping[str, Any] | None:
    """Return the fastest build of one kind, except first builds of a process and builds of cold files."""
    matching = [
        row
        for row in _matching(rows, cases.BUILDS, f"{name}, {place}, ")
        if cases.FIRST not in row["case"] and cases.COLD not in row["case"]
    ]
    return max(matching, key=lambda row: row["median"], default=None)


def _tests(rows: Rows) -> tuple[bool, str] | None:
    for row in _matching(rows, cases.TESTS, cases.GPU_TESTS):
        failed = row["params"]["failed"]
        return not failed and row["median"] > 0, f"{row['median']:.0f} passed, {len(failed)} failed"
    return None


def _at_most(stage: str, start: str, limit: float, unit: str, scale: float = 1.0) -> Callable[[Rows], Any]:
    """Return a check that the last matching record, times `scale`, is at most `limit`, in `unit`."""

    def check(rows: Rows) -> tuple[bool, str] | None:
        matching = [row for row in _matching(rows, stage, start) if "kernels" not in row["case"]]
        if not matching:
            return None
        value = scale * matching[-1]["median"]
        return value <= limit, f"{value:,.4g} {unit}"

    return check


def _on_disk(rows: Rows) -> tuple[bool, str] | None:
    build, disk = _best_build(rows, "images", "on disk"), _matching(rows, cases.MACHINE, cases.DISK)
    if build is None:
        return None
    text, share = f"{build['median']:,.0f} x", 0.0
    if disk:
        share = build["params"]["gb_per_second"] / disk[0]["median"]
        text += f", {share:.2f} of the disk's rate"
    return build["median"] >= 10_000 or share >= 0.8, text


def _in_memory(rows: Rows) -> tuple[bool, str] | None:
    build = _best_build(rows, "images", "in memory")
    return None if build is None else (build["median"] >= 25_000, f"{build['median']:,.0f} x")


def _with_features(rows: Rows) -> tuple[bool, str] | None:
    shares = [
        features["median"] / images["median"]
        for place in ("in memory", "on disk")
        if (images := _best_build(rows, "images", place))
        and (features := _best_build(rows, "images + features", place))
    ]
    return (min(shares) >= 0.8, ", ".join(f"{share:.2f}" for share in shares)) if shares else None


GOALS = (
    Goal("all tests that need a GPU pass", _tests),
    Goal("images of a clip in at most 40 µs", _at_most(cases.TRANSFORM, f"{cases.IMAGES}, ", 40, "µs", 1e3)),
    Goal("features of a clip in at most 60 µs", _at_most(cases.TRANSFORM, cases.FEATURES, 60, "µs", 1e3)),
    Goal("files to shards on disk: 10,000 x real time, or 0.8 of the disk's rate", _on_disk),
    Goal("files to shards in memory: 25,000 x real time", _in_memory),
    Goal("with features, 0.8 of these", _with_features),
    Goal("audio to report with all models tuned: 300 s", _at_most(cases.SEARCHES, cases.ALL, 300, "s")),
    Goal("search of the CNN at 128 x 128: 60 s", _at_most(cases.SEARCHES, cases.CNN.format(128), 60, "s")),
    Goal("search of the CNN at 512 x 512: 120 s", _at_most(cases.SEARCHES, cases.CNN.format(512), 120, "s")),
)
