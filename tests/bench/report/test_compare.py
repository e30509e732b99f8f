"""What became faster, what slower, what is noise."""

import pytest

from shardwave.bench.harness.record import Record, append
from shardwave.bench.report.compare import change, compare
from shardwave.common.environment import environment
from shardwave.common.errors import UsageError


def records(path, **cases):
    path.mkdir()
    for name, (unit, role, repeats) in cases.items():
        append(path / "records.jsonl", Record("s", name, role, unit, repeats))
    return path


def test_faster_slower_and_noise(tmp_path):
    before = records(
        tmp_path / "a",
        rate=("samples/s", "ours", [100, 101, 102]),
        time=("s", "ours", [1.0, 1.01, 1.02]),
        noisy=("s", "ours", [1.0, 2.0, 3.0]),
        gone=("s", "ours", [1.0]),
    )
    after = records(
        tmp_path / "b",
        rate=("samples/s", "ours", [200, 202, 204]),
        time=("s", "ours", [2.0, 2.02, 2.04]),
        noisy=("s", "ours", [1.5, 2.5, 3.5]),
        new=("s", "ours", [1.0]),
    )
    found = compare(before, after)
    assert [(one["case"], round(one["ratio"], 2)) for one in found["faster"]] == [("rate", 2.0)]
    assert [(one["case"], round(one["ratio"], 2)) for one in found["slower"]] == [("time", 0.5)]
    assert [one["case"] for one in found["same"]] == ["noisy"]
    assert (found["only_before"], found["only_after"]) == (["s / gone / s"], ["s / new / s"])
    assert "## Slower (1)" in found["text"] and "x0.50" in found["text"]


def test_small_changes_and_single_repeats_need_more():
    def row(*repeats):
        return Record("s", "c", "ours", "samples/s", repeats).row()

    assert change(row(100, 100, 100), row(102, 102, 102))["verdict"] == "same"
    assert change(row(100, 100, 100), row(104, 104, 104))["verdict"] == "faster"
    assert change(row(100), row(115))["verdict"] == "same"
    assert change(row(100), row(70))["verdict"] == "slower"


def test_changed_baselines_and_machines_are_noted(tmp_path, monkeypatch):
    before = records(tmp_path / "a", f=("samples/s", "baseline", [100, 100, 100]))
    other = Record(
        "s",
        "f",
        "baseline",
        "samples/s",
        [300, 300, 300],
        environment={**environment(), "cpu": "another", "cores": 64},
    )
    (tmp_path / "b").mkdir()
    append(tmp_path / "b" / "records.jsonl", other)
    notes = compare(before, tmp_path / "b")["notes"]
    assert "machines differ" in notes[0] and "baselines or limits changed" in notes[1]


def test_records_without_a_common_case_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no case in common"):
        compare(
            records(tmp_path / "a", x=("s", "ours", [1.0])), records(tmp_path / "b", y=("s", "ours", [1.0]))
        )
    append(tmp_path / "empty.jsonl", Record("s", "c", "ours", "s", skipped="no GPU"))
    with pytest.raises(UsageError, match="no measured case"):
        compare(tmp_path / "empty.jsonl", tmp_path / "a")
