"""The tests that need a GPU: engines against the reference, and data on the device."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from xml.etree import ElementTree

from shardwave.bench.gpu.cases import GPU_TESTS as CASE
from shardwave.bench.gpu.cases import TESTS as STAGE
from shardwave.bench.harness.process import ROOT
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope, missing

UNIT = "tests"
FOLDERS = ("tests/preprocess", "tests/shards", "tests/models", "tests/search")
QUICK = ("tests/shards/read/test_loader.py",)  # one file shows that the step works


def run(scope: Scope) -> Iterator[Record]:
    """Run `pytest -m gpu` over the packages.

    Yields:
        A record of the number of tests that passed, with the names of those that failed.
    """
    chosen = [name for name in (QUICK if scope.quick else FOLDERS) if (ROOT / name).exists()]
    reason = missing("pytest", "dev") or (None if chosen else f"{ROOT} holds no tests: use a checkout")
    if reason:
        yield Record(STAGE, CASE, "ours", UNIT, skipped=reason)
        return
    report, start = scope.folder / "tests.xml", time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors"]
    done = subprocess.run(
        [*command, f"--junit-xml={report}", *chosen],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not report.exists():
        raise RuntimeError(f"pytest ended with status {done.returncode}: {done.stdout.strip()[-300:]}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes: dict[str, list[str]] = {"failed": [], "skipped": [], "not_collected": []}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("skipped") is not None:
            outcomes["skipped"].append(name)
        elif "ModuleNotFoundError" in "".join(case.itertext()) and case.find("error") is not None:
            outcomes["not_collected"].append(name)  # files that need an optional package
        elif case.find("failure") is not None or case.find("error") is not None:
            outcomes["failed"].append(name)
    params = {
        "failed": outcomes["failed"],
        "not_collected": outcomes["not_collected"],
        "skipped_tests": len(outcomes["skipped"]),
        "seconds": round(time.perf_counter() - start, 1),
    }
    passed = len(cases) - sum(map(len, outcomes.values()))
    if passed or outcomes["failed"]:
        yield Record(STAGE, CASE, "ours", UNIT, [float(passed)], params)
    else:
        reason = f"all {len(outcomes['skipped'])} tests were skipped, as without a CUDA device"
        yield Record(STAGE, CASE, "ours", UNIT, params=params, skipped=reason)
