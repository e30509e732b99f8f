"""`bench throughput`: run the stages and append their records to a file."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from shardwave.bench.harness import audio
from shardwave.bench.harness.record import Record, append
from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import QUICK
from shardwave.bench.report.page import write
from shardwave.bench.stages import STAGES
from shardwave.common.environment import cores
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say


class Measured(TypedDict):
    """Results of `throughput`."""

    records: str
    report: str
    cases: int
    skipped: int
    seconds: float


def throughput(
    out: Path | str,
    stages: Sequence[str] | None = None,
    quick: bool = False,
    scale: bool = False,
    music: Path | str = audio.MUSIC,
    folder: Path | str | None = None,
) -> Measured:
    """Measure stages and write `records.jsonl` and `report.html`.

    A stage that fails is recorded as skipped with the reason, and the other stages are measured.

    Args:
        out: New folder of the results.
        stages: Stages to measure; None is all stages.
        quick: Whether to use smaller inputs.
        scale: Whether to measure the cost of builds over clips and workers too.
        music: Folder of recordings that the clips are cut from.
        folder: Folder for temporary files, about 12 GB in a full run; None is the system's.

    Returns:
        Paths of the records and of the report, number of cases and of skipped cases, and seconds.

    Raises:
        UsageError: A stage is unknown, or `out` holds records.
        ShardwaveError: A stage failed.
    """
    from shardwave.models.training.interruption import sigterm_as_interrupt

    chosen = tuple(stages or STAGES)
    for name in chosen:
        if name not in STAGES:
            raise UsageError(f"--stage must be one of {', '.join(STAGES)}, got {name}")
    out, music = Path(out), Path(music)
    path = out / "records.jsonl"
    if path.exists():
        raise UsageError(f"--out {out} holds bench records already: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    rows: list[Record] = []
    broken = []
    with sigterm_as_interrupt(), contextlib.ExitStack() as stack:
        temporary = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="shardwave-bench-", dir=folder))
        )
        scope = (
            Scope(temporary, True, cores(), 20, QUICK, music)
            if quick
            else Scope(temporary, workers=cores(), music=music)
        )
        stack.callback(scope.close)
        for name in (*chosen, "scale") if scale else chosen:
            say(f"{name} …")
            start = time.perf_counter()
            module = importlib.import_module(
                f"shardwave.bench.{name}" if name == "scale" else f"shardwave.bench.stages.{name}"
            )
            try:
                for record in module.run(scope):
                    append(path, record)
                    rows.append(record)
                    say(line(record))
            except Exception as error:  # the other stages take half an hour; the failure is raised at the end
                reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                append(path, Record(name, name, "ours", "none", skipped=reason))
                broken.append(f"{name} ({reason})")
                say(*traceback.format_exc().splitlines())
            say(f"{name}: {time.perf_counter() - start:.1f} s")
    write([out], out / "report.html")
    if broken:
        raise ShardwaveError(
            f"bench throughput: {'; '.join(broken)}; the other stages' records are in {path}"
        )
    return {
        "records": str(path),
        "report": str(out / "report.html"),
        "cases": len(rows),
        "skipped": sum(bool(row.skipped) for row in rows),
        "seconds": round(time.perf_counter() - start, 1),
    }


def line(record: Record) -> str:
    """Return a record as one line of text."""
    name = f"  {record.role:8s} {record.case}"
    if record.skipped:
        return f"{name}: skipped, {record.skipped}"
    row = record.row()
    of_limit = "" if record.of_limit is None else f", {record.of_limit:.2g} of the limit"
    return (
        f"{name}: {row['median']:,.6g} {record.unit} ({row['q1']:,.6g} to {row['q3']:,.6g}, n "
        f"{row['n']}){of_limit}"
    )
