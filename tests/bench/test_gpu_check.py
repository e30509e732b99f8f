"""`bench gpu-check`: all steps on the CPU, failures and time limits, and the verdict on made-up records."""

import json

import pytest
import torch

from shardwave.bench import gpu_check
from shardwave.bench.gpu import STEPS, cases, goals, transform
from shardwave.bench.harness.record import read
from shardwave.common.errors import UsageError


@pytest.mark.slow
def test_all_steps_run_on_the_cpu(tmp_path):
    """A step that fails, or whose records cannot be read, would waste a loan of a GPU."""
    summary = gpu_check.gpu_check(tmp_path / "out", seconds=1_200, tiny=True)
    rows = read(tmp_path / "out")
    assert {row["stage"] for row in rows} == {f"gpu-{name}" for name in STEPS}
    reasons = {row["skipped"] for row in rows if row["skipped"]}
    if not torch.cuda.is_available():
        assert all("CUDA" in reason for reason in reasons), reasons
    measured = {row["case"] for row in rows if not row["skipped"]}
    assert {cases.ALL, cases.CNN.format(32), cases.FEATURES, cases.DISK, "mlp, bf16-mixed"} <= measured
    assert sum(name in case for case in measured for name in (cases.FIRST, cases.COLD)) == 2
    text = (tmp_path / "out" / "verdict.md").read_text()
    assert text.count("\n| ") == 1 + len(rows) and summary["cases"] == len(rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["records.jsonl", "verdict.md"]


def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device here.*--tiny"):
        gpu_check.gpu_check(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_options(tmp_path):
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(UsageError, match="holds records already"):
        gpu_check.gpu_check(tmp_path, tiny=True)
    with pytest.raises(UsageError, match="--only must be one of machine, tests, .*, got speed"):
        gpu_check.gpu_check(tmp_path / "out", only=["speed"], tiny=True)


def test_a_step_over_its_time_is_recorded_and_the_next_one_runs(tmp_path):
    summary = gpu_check.gpu_check(tmp_path / "out", seconds=0.2, only=["machine", "transform"], tiny=True)
    rows = read(tmp_path / "out")
    assert [row["stage"] for row in rows] == ["gpu-machine", "gpu-transform"]
    assert all("stopped after its 0 s" in row["skipped"] for row in rows) and summary["skipped"] == 2


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("the first\nreason"), 1, "failed: ValueError: the first reason"),
        (ModuleNotFoundError("x", name="soxr"), 0, "soxr is not installed: pip install soxr"),
    ],
)
def test_a_failed_step_keeps_its_records(tmp_path, monkeypatch, error, status, reason):
    def run(scope):
        yield from before(scope)
        raise error

    def before(scope):
        yield gpu_check.Record(cases.TRANSFORM, "one", "ours", "ms", [1.0])

    monkeypatch.setattr(transform, "run", run)
    assert gpu_check.run_step("transform", tmp_path, tmp_path / "work", True) == status
    rows = read(tmp_path)
    assert rows[0]["median"] == 1 and rows[1]["skipped"] == reason


def row(stage, case, median, **params):
    return {"stage": stage, "case": case, "median": median, "skipped": None, "params": params}


def test_the_verdict_compares_records_with_goals():
    rows = [
        row(cases.TESTS, cases.GPU_TESTS, 90.0, failed=["one"]),
        row(cases.TRANSFORM, f"{cases.IMAGES}, 5 clips", 0.09),
        row(cases.TRANSFORM, f"{cases.IMAGES}, 50 clips", 0.03),
        row(cases.TRANSFORM, f"{cases.IMAGES} + features, 50 clips", 0.2),
        row(cases.MACHINE, cases.DISK, 2.0),
        row(cases.BUILDS, f"images, on disk, {cases.FIRST}", 90_000.0, gb_per_second=9.0),
        row(cases.BUILDS, "images, on disk, 4 threads", 7_000.0, gb_per_second=1.7),
        row(cases.BUILDS, "images, in memory, 4 threads", 24_000.0, gb_per_second=2.0),
        row(cases.BUILDS, "images, in memory, 8 threads", 26_000.0, gb_per_second=2.0),
        row(cases.BUILDS, "images + features, in memory, 8 threads", 13_000.0, gb_per_second=1.0),
        row(cases.SEARCHES, cases.CNN.format(512), 121.0),
        {**row(cases.SEARCHES, cases.ALL, None), "skipped": "stopped"},
    ]
    states = [(state, measured) for _, state, measured in goals.verdict(rows)]
    assert states == [
        ("not met", "90 passed, 1 failed"),
        ("met", "30 µs"),
        ("not measured", ""),
        ("met", "7,000 x, 0.85 of the disk's rate"),
        ("met", "26,000 x"),
        ("not met", "0.50"),
        ("not measured", ""),
        ("not measured", ""),
        ("not met", "121 s"),
    ]
    json.dumps(states)
