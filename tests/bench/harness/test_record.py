"""Records hold DESIGN's fields, all repeats, and what they ran on; damaged files are named."""

import json
import math

import pytest

from shardwave.bench.harness.record import FIELDS, ROLES, Record, append, quartiles, read, with_limit
from shardwave.bench.report.tables import RESULTS
from shardwave.common.errors import ShardwaveError, UsageError


def test_row_has_exactly_the_fields_of_the_design():
    row = Record("loading", "ours", "ours", "samples/s", [3.0, 1.0, 2.0], {"batch_size": 32}).row()
    assert tuple(row) == FIELDS
    assert (row["median"], row["q1"], row["q3"], row["n"], row["repeats"]) == (
        2.0,
        1.5,
        2.5,
        3,
        [3.0, 1.0, 2.0],
    )
    assert (
        row["environment"]["cpu"]
        and row["commit"] == row["environment"]["commit"]
        and row["date"] == row["environment"]["date"]
    )


def test_skipped_record_has_a_reason_and_no_repeats():
    row = Record("transfer", "pinned", "ours", "GB/s", skipped="no CUDA device").row()
    assert (row["skipped"], row["median"], row["n"], row["repeats"]) == ("no CUDA device", None, 0, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "mine", "repeats": [1.0]},
        {"role": "ours"},
        {"role": "ours", "repeats": [1.0], "skipped": "why"},
        {"role": "ours", "repeats": [1.0], "of_limit": 1.1},
    ],
)
def test_inconsistent_records_are_refused(fields):
    with pytest.raises(UsageError):
        Record("s", "c", fields.pop("role"), "s", **fields)


def test_fraction_of_the_limit_for_rates_and_for_times():
    assert with_limit(Record("s", "a", "ours", "samples/s", [50.0]), 100.0).of_limit == 0.5
    assert with_limit(Record("s", "a", "ours", "s", [4.0]), 1.0).of_limit == 0.25
    assert with_limit(Record("s", "a", "ours", "s", skipped="no GPU"), 1.0).of_limit is None


def test_a_median_beyond_the_limit_has_no_fraction_of_it():
    record = with_limit(Record("s", "a", "ours", "samples/s", [150.0], {"size": 3}), 100.0)
    assert (record.of_limit, record.params) == (None, {"size": 3, "limit_exceeded": 1.5})


def test_stored_records_use_the_roles_and_stay_within_their_limits():
    for path in sorted(RESULTS.glob("*.jsonl")):
        for row in read(path):
            assert row["role"] in ROLES
            assert row["of_limit"] is None or 0 < row["of_limit"] <= 1, (path.name, row["case"])
            assert row["of_limit"] is None or row["role"] != "limit", "a limit is no fraction of itself"


def test_quartiles_agree_with_numpy():
    import numpy as np

    values = [5.0, 1.0, 9.0, 2.0, 7.0, 7.5]
    assert quartiles(values) == pytest.approx(tuple(np.quantile(values, [0.25, 0.75])))
    assert quartiles([3.0]) == (3.0, 3.0)


def test_append_then_read_gives_the_rows_back(tmp_path):
    path = tmp_path / "records.jsonl"
    for value in (1.0, 2.0):
        append(path, Record("s", f"c{value}", "ours", "s", [value]))
    assert [row["median"] for row in read(tmp_path)] == [1.0, 2.0]
    assert all(not isinstance(row["median"], float) or math.isfinite(row["median"]) for row in read(path))


def test_damaged_or_foreign_files_are_named(tmp_path):
    with pytest.raises(ShardwaveError, match="no bench records there"):
        read(tmp_path)
    path = tmp_path / "records.jsonl"
    path.write_text('{"stage": "x"}\n')
    with pytest.raises(ShardwaveError, match="line 1 is damaged: it lacks the field case"):
        read(path)
    path.write_text(json.dumps(Record("s", "c", "ours", "s", [1.0]).row()) + "\n{half")
    with pytest.raises(ShardwaveError, match="line 2 is damaged: not JSON"):
        read(path)
