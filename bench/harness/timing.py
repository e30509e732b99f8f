"""Timing that does not fool itself: warm-up, cases taken in turn, repeats until the spread is small or a limit."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from shardwave.bench.harness.record import Record, against_floor, quartiles

SCALES = {"s": 1.0, "ms": 1e3, "s/trial": 1.0}  # of seconds, for units of time; every other unit is work per second
IDLE = 0.02  # seconds watched to see whether anything works


class Seconds(float):
    """What a case returns that timed itself (a search's overhead, a build's steady part)."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time. A call of `run` does `work` units of work and has finished them when it returns."""

    name: str
    role: str  # ours, peer, floor
    run: Callable[[], object] = lambda: None
    work: float = 1.0
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    before: Callable[[], object] | None = None  # untimed, before every call (dropping a cache)
    once: bool = False  # neither warmed up nor repeated (minutes-long peers)
    skipped: str | None = None  # why it cannot run


@dataclasses.dataclass(frozen=True)
class Plan:
    """When to stop repeating."""

    minimum: int = 5
    maximum: int = 25
    spread: float = 0.03  # a case is done once its interquartile range is below this fraction of its median
    seconds: float = 20.0  # for all cases together, after which none is repeated beyond `minimum`
    limit: float = 90.0  # for all cases together, after which none is repeated at all; every case runs at least once
    warmup: int = 1


QUICK = Plan(minimum=3, maximum=5, spread=0.10, seconds=1.0, limit=5.0)


def measure(cases: Sequence[Case], plan: Plan) -> dict[str, list[float]]:
    """Seconds of every repeat, per case.

    Rounds go through the cases forwards and backwards in turn, so that a drift of the machine hits all of them alike.
    """
    taken: dict[str, list[float]] = {case.name: [] for case in cases}
    if len(taken) < len(cases):
        raise ValueError(f"two cases of one name: {[case.name for case in cases]}")
    for case in cases:
        for _ in range(0 if case.once else plan.warmup):
            _call(case)
    start = time.perf_counter()
    open_cases = list(cases)
    while open_cases:
        for case in open_cases:
            if not taken[case.name] or time.perf_counter() - start < plan.limit:
                taken[case.name].append(_call(case))
        seconds = time.perf_counter() - start
        open_cases = [case for case in reversed(open_cases) if not case.once and not done(taken[case.name], seconds, plan)]
    return taken


def done(values: Sequence[float], seconds: float, plan: Plan) -> bool:
    """Whether a case that gave `values` has been repeated enough, `seconds` after the start of its group."""
    if seconds >= plan.limit or len(values) >= plan.maximum:
        return True
    if len(values) < plan.minimum:
        return False
    q1, q3 = quartiles(values)
    return seconds >= plan.seconds or q3 - q1 <= plan.spread * statistics.median(values)


def timed(
    stage: str, unit: str, cases: Sequence[Case], plan: Plan, floors: Sequence[str] | None = None, **changes: Any
) -> list[Record]:
    """Measure `cases` together, by the plan with `changes`; records of work per second (or of seconds, for units of time).

    `floors` names the cases that the others are held against; without it, those of role floor.
    """
    taken = measure([case for case in cases if not case.skipped], dataclasses.replace(plan, **changes))
    records = []
    for case in cases:
        scale = SCALES.get(unit)
        values = [
            scale * seconds / case.work if scale else case.work / max(seconds, 1e-12) for seconds in taken.get(case.name, ())
        ]
        records.append(Record(stage, case.name, case.role, unit, values, case.params, skipped=case.skipped))
    names = floors if floors is not None else [case.name for case in cases if case.role == "floor"]
    return against_floor(records, names)


def synchronise() -> None:
    """Wait for what was queued on the GPU, where torch is loaded and there is one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def settle(longest: float = 2.0) -> None:
    """Wait until no thread of this process works, `longest` seconds at most: what one case leaves running slows down the next
    (DALI's CPU pipeline works on for half a second after its last batch).
    """
    end = time.perf_counter() + longest
    worked = 1.0
    while worked > 0.1 * IDLE and time.perf_counter() < end:
        before = time.process_time()
        time.sleep(IDLE)
        worked = time.process_time() - before


def _call(case: Case) -> float:
    if case.before is not None:
        case.before()
    synchronise()
    settle()
    start = time.perf_counter()
    result = case.run()
    synchronise()
    return result if isinstance(result, Seconds) else time.perf_counter() - start
