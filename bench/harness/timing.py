"""Timing of cases: warm-up, alternating rounds, and repeats until the spread is small."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from shardwave.bench.harness.record import Params, Record, quartiles, with_limit

SCALES = {"s": 1.0, "ms": 1e3, "s/trial": 1.0}  # per second; other units are work per second
IDLE = 0.02  # seconds over which `wait_until_idle` measures the processor time of this process


class Seconds(float):
    """Duration measured by the case itself; `measure` uses it instead of the duration of the call."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time.

    Args:
        name: Name of the case, unique in its group.
        role: One of `record.ROLES`.
        run: Function to time; its work is finished when it returns.
        work: Units of work of one call.
        params: Parameters for the record.
        before: Function called before every call of `run`, not timed.
        once: Whether the case is neither warmed up nor repeated.
        skipped: Reason why the case cannot run.
        least: Least seconds that one call takes on this machine. A case of the role limit is not run: its
            record states this bound.
    """

    name: str
    role: str
    run: Callable[[], object] = lambda: None
    work: float = 1.0
    params: Params = dataclasses.field(default_factory=dict)
    before: Callable[[], object] | None = None
    once: bool = False
    skipped: str | None = None
    least: float | None = None

    @property
    def computed(self) -> bool:
        """Whether the case is a computed limit, which is not run."""
        return self.role == "limit" and self.least is not None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Number of repeats of a group of cases.

    Args:
        minimum: Least repeats of a case.
        maximum: Most repeats of a case.
        spread: Interquartile range, as a fraction of the median, below which a case is not repeated further.
        seconds: Time of the group after which no case is repeated beyond `minimum`.
        limit: Time of the group after which no case is repeated at all; every case runs at least once.
        warmup: Calls before the first repeat that are not recorded.
    """

    minimum: int = 5
    maximum: int = 25
    spread: float = 0.03
    seconds: float = 20.0
    limit: float = 90.0
    warmup: int = 1


QUICK = Plan(minimum=3, maximum=5, spread=0.10, seconds=1.0, limit=5.0)


def measure(cases: Sequence[Case], plan: Plan) -> dict[str, list[float]]:
    """Time all cases of a group.

    The order of the cases is reversed in every second round, so that a drift of the machine's speed affects
    all cases alike.

    Args:
        cases: Cases with different names.
        plan: Number of repeats.

    Returns:
        The seconds of every repeat, by the name of the case.

    Raises:
        ValueError: Two cases have the same name.
    """
    repeats: dict[str, list[float]] = {case.name: [] for case in cases}
    if len(repeats) < len(cases):
        raise ValueError(f"two cases have one name: {[case.name for case in cases]}")
    for case in cases:
        for _ in range(0 if case.once else plan.warmup):
            _call(case)
    start = time.perf_counter()
    open_cases = list(cases)
    while open_cases:
        for case in open_cases:
            if not repeats[case.name] or time.perf_counter() - start < plan.limit:
                repeats[case.name].append(_call(case))
        seconds = time.perf_counter() - start
        open_cases = [
            case
            for case in reversed(open_cases)
            if not case.once and not done(repeats[case.name], seconds, plan)
        ]
    return repeats


def done(values: Sequence[float], seconds: float, plan: Plan) -> bool:
    """Return whether a case needs no further repeat.

    Args:
        values: Seconds of its repeats.
        seconds: Time since the start of its group.
        plan: Number of repeats.
    """
    if seconds >= plan.limit or len(values) >= plan.maximum:
        return True
    if len(values) < plan.minimum:
        return False
    q1, q3 = quartiles(values)
    return seconds >= plan.seconds or q3 - q1 <= plan.spread * statistics.median(values)


def timed(stage: str, unit: str, cases: Sequence[Case], plan: Plan, **changes: Any) -> list[Record]:
    """Time `cases` together and return their records.

    Args:
        stage: Stage of the records.
        unit: Unit of the records: one of SCALES, or units of work per second.
        cases: Cases of one group.
        plan: Number of repeats.
        **changes: Fields of the plan that differ for this group.
    """
    measured = [case for case in cases if not case.skipped and not case.computed]
    repeats = measure(measured, dataclasses.replace(plan, **changes))
    records = []
    for case in cases:
        seconds = repeats.get(case.name, ()) if case.least is None or not case.computed else [case.least]
        values = [_in_unit(unit, value, case.work) for value in seconds]
        record = Record(stage, case.name, case.role, unit, values, case.params, skipped=case.skipped)
        if case.least is not None and not case.computed:
            record = with_limit(record, _in_unit(unit, case.least, case.work))
        records.append(record)
    return records


def _in_unit(unit: str, seconds: float, work: float) -> float:
    scale = SCALES.get(unit)
    return scale * seconds / work if scale else work / max(seconds, 1e-12)


def synchronise() -> None:
    """Wait for the work queued on the GPU, if torch is loaded and uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def wait_until_idle(longest: float = 2.0) -> None:
    """Wait until no thread of this process uses the processor.

    Threads that a case leaves running slow down the next case: DALI's CPU pipeline works for half a second
    after its last batch.

    Args:
        longest: Seconds to wait at most.
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
    wait_until_idle()
    start = time.perf_counter()
    result = case.run()
    synchronise()
    return result if isinstance(result, Seconds) else time.perf_counter() - start
