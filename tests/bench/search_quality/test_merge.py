"""Merged records of replays."""

import pytest

from shardwave.bench.harness.record import Record, append, read
from shardwave.bench.search_quality import merge
from shardwave.common.errors import UsageError


def write(path, name, repeats, table="t"):
    params = {"table": table, "workers": 1, "rank": 9.0, "beaten_by": ["nothing"]}
    append(path, Record("search-quality", f"{table}, 1 workers: {name}", "ours", "regret", repeats, params))


def test_ranks_are_computed_over_all_records_and_the_last_of_a_case_stays(tmp_path):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    write(old, "a", [0.5] * 30)
    write(old, "b", [0.9] * 30)
    write(old, "a", [0.5] * 30, table="other")
    write(new, "b", [0.1 + 0.001 * seed for seed in range(30)])
    write(new, "c", [0.5] * 30)
    merge.main(old, new)
    found = {row["case"]: (row["params"]["rank"], row["params"]["beaten_by"]) for row in read(old)}
    assert found == {
        "t, 1 workers: a": (2.5, ["b"]),
        "t, 1 workers: b": (1.0, []),
        "t, 1 workers: c": (2.5, ["b"]),
        "other, 1 workers: a": (1.0, []),
    }
    write(new, "d", [0.5] * 3)
    with pytest.raises(UsageError, match="t, 1 workers must have equally many seeds, got {3, 30}"):
        merge.main(old, new)
