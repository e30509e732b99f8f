"""`bench gpu-check`: measure all steps from audio to tuned models on a GPU, in ten minutes.

Every step runs in its own process with a time limit. Each record is appended when it is measured, so that a
step that fails or runs too long loses only its remaining records.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.gpu import STEPS
from shardwave.bench.gpu.cases import MEMORY
from shardwave.bench.harness.process import ROOT
from shardwave.bench.harness.record import Record, append, read
from shardwave.common import log
from shardwave.common.environment import cores
from shardwave.common.errors import ShardwaveError, UsageError, require
from shardwave.common.messages import say

SECONDS = 560.0  # time of all steps
GRACE = 5.0  # seconds from the request to end until a step is killed
NO_GPU = (
    "gpu-check: PyTorch sees no CUDA device here; run it where there is one, or check with --tiny that "
    "its steps work on the CPU"
)


def gpu_check(
    out: Path | str, seconds: float = SECONDS, only: Sequence[str] = (), tiny: bool = False
) -> dict[str, Any]:
    """Run the steps and write `records.jsonl` and `verdict.md`.

    Args:
        out: New folder of the results, on the disk to measure.
        seconds: Time of all steps together; the next steps can use the unused time of a step.
        only: Steps to run; by default all.
        tiny: Use the smallest inputs, on any device.

    Returns:
        Path of the records, number of records and of skipped ones, goals with their states, and seconds.

    Raises:
        UsageError: There is no CUDA device, a step is unknown, or `out` holds records.
    """
    from shardwave.models.training.interruption import sigterm_as_interrupt

    for name in only:
        require(name in STEPS, f"--only must be one of {', '.join(STEPS)}", name)
    require(seconds > 0, "seconds must be positive", seconds)
    out = Path(out).absolute()
    path = out / "records.jsonl"
    if path.exists():
        raise UsageError(f"--out {out} holds records already: name a new folder")
    if not tiny:
        import torch

        if not torch.cuda.is_available():
            raise UsageError(NO_GPU)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    chosen = [name for name in STEPS if not only or name in only]
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_as_interrupt())
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-check-", dir=out))
        stack.callback(shutil.rmtree, MEMORY / Path(work).name, ignore_errors=True)  # of a killed step
        for i, name in enumerate(chosen):
            weights = [STEPS[later][0] for later in chosen[i:]]
            limit = max(0.0, seconds - (time.monotonic() - start)) * weights[0] / sum(weights)
            say(f"{name}: {STEPS[name][1]}; at most {limit:.0f} s")
            reason = _run(name, out, Path(work) / name, limit, tiny)
            if reason:
                append(
                    path, Record(f"gpu-{name}", f"{name}: rest of the step", "ours", "none", skipped=reason)
                )
                say(f"{name}: {reason}")
    return _summary(path, time.monotonic() - start, tiny)


def _run(name: str, out: Path, work: Path, limit: float, tiny: bool) -> str | None:
    """Run a step in a process; return the reason if it failed or was stopped."""
    command = [sys.executable, "-m", "shardwave.bench.gpu_check", "--out", str(out), "--step", name]
    command += ["--work", str(work), *["--tiny"] * tiny]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    began = time.monotonic()
    process = subprocess.Popen(  # its own group of processes ends with it
        command, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True
    )
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"stopped after its {limit:.0f} s; its records until then are kept"
    finally:
        if process.poll() is None:
            _end(process)
    say(f"{name}: {time.monotonic() - began:.1f} s")
    if status < 0:
        return f"its process was killed by signal {-status}"
    return None if status == 0 else "failed, see the earlier record of the step"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all processes of its group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _summary(path: Path, seconds: float, tiny: bool) -> dict[str, Any]:
    """Write the table and the verdict, show them, and return the summary."""
    from shardwave.bench.gpu.goals import verdict
    from shardwave.bench.report.blocks import number
    from shardwave.bench.report.render import table

    rows = read(path)
    cells = [
        (
            row["stage"].removeprefix("gpu-"),
            row["case"],
            f"skipped: {row['skipped']}" if row["skipped"] else f"{number(row['median'])} {row['unit']}",
            "" if row["of_limit"] is None else number(row["of_limit"], 2),
        )
        for row in rows
    ]
    measured = table(("step", "case", "median", "of limit"), cells, (2, 3))
    goals = [] if tiny else verdict(rows)
    checked = (
        "The smallest inputs: the goals of an H200 do not apply."
        if tiny
        else table(("goal on an H200", "verdict", "measured"), goals)
    )
    (path.parent / "verdict.md").write_text(f"{measured}\n\n{checked}\n", encoding="utf-8")
    say(*measured.splitlines(), "", *checked.splitlines())
    return {
        "records": str(path),
        "verdict": str(path.parent / "verdict.md"),
        "cases": len(rows),
        "skipped": sum(bool(row["skipped"]) for row in rows),
        "goals": {text: state for text, state, _ in goals},
        "seconds": round(seconds, 1),
    }


def run_step(name: str, out: Path, work: Path, tiny: bool) -> int:
    """Run one step in this process and append its records; return the exit status.

    Args:
        name: Name of the step.
        out: Folder of the records.
        work: Temporary folder of the step.
        tiny: Use the smallest inputs.
    """
    from shardwave.bench.harness.run import line
    from shardwave.bench.harness.scope import Scope
    from shardwave.bench.harness.timing import Plan
    from shardwave.models.training.interruption import sigterm_as_interrupt

    work.mkdir(parents=True)
    plan = Plan(minimum=1, maximum=1, seconds=0, limit=60, warmup=0) if tiny else Plan(seconds=5, limit=20)
    scope = Scope(work, tiny, cores(), 2 if tiny else 50, plan, music=work / "none")
    try:
        with sigterm_as_interrupt():
            for record in importlib.import_module(f"shardwave.bench.gpu.{name}").run(scope):
                append(out / "records.jsonl", record)
                say(line(record))
    except KeyboardInterrupt:  # it ran too long, which the main process records
        return 130
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed: pip install {error.name}"
        append(out / "records.jsonl", Record(f"gpu-{name}", name, "ours", "none", skipped=reason))
        say(f"{name}: {reason}")
    except Exception as error:
        reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        append(out / "records.jsonl", Record(f"gpu-{name}", name, "ours", "none", skipped=reason))
        say(*traceback.format_exc().splitlines())
        return 1
    finally:
        scope.close()
    return 0


def main() -> None:
    """Run `gpu_check`, or one step of it in this process, with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m shardwave.bench.gpu_check", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="new folder of the results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time of all steps")
    parser.add_argument("--only", action="append", default=[], choices=list(STEPS), help="step to run")
    parser.add_argument("--tiny", action="store_true", help="smallest inputs, on any device")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    log.set_up()
    if options.step:
        sys.exit(run_step(options.step, options.out, options.work, options.tiny))
    try:
        gpu_check(options.out, options.seconds, options.only, options.tiny)
    except ShardwaveError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
