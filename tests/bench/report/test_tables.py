"""The documents' tables are those of the records, and nothing else."""

import pytest

from shardwave.bench.harness.record import Record, append
from shardwave.bench.report import tables
from shardwave.common.errors import UsageError

TEXT = "# Title\n\n<!-- bench-table run loading -->\nold\n<!-- /bench-table -->\n\nend\n"


@pytest.fixture
def results(tmp_path):
    append(tmp_path / "run.jsonl", Record("loading", "a peer", "peer", "samples/s", [10.0, 11.0]))
    append(
        tmp_path / "run.jsonl",
        Record("loading", "ours", "ours", "samples/s", [1234.5, 1240.0, 1250.0], of_limit=0.625),
    )
    append(tmp_path / "run.jsonl", Record("transfer", "pinned", "ours", "GB/s", skipped="no CUDA device"))
    return tmp_path


def test_tables_are_filled_between_their_markers(results):
    filled = tables.filled(TEXT, results)
    assert filled.startswith("# Title\n\n<!-- bench-table run loading -->\n") and filled.endswith(
        "<!-- /bench-table -->\n\nend\n"
    )
    assert "old" not in filled and "pinned" not in filled
    lines = [line for line in filled.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| ours | ours | 1,240 samples/s |") and lines[2].endswith("| 3 | 0.62 |")
    assert lines[3].startswith("| a peer | peer | 10.5 samples/s |")
    assert tables.filled(filled, results) == filled


def test_every_stage_and_chosen_cases(results):
    every = tables.filled(TEXT.replace("run loading", "run *"), results)
    assert "skipped: no CUDA device" in every
    some = tables.filled(TEXT.replace("run loading", "run loading ^a p.er"), results)
    assert "a peer" in some and "1,240" not in some


def test_missing_records_are_named(results):
    with pytest.raises(UsageError, match="bench/results/other.jsonl, which does not exist; files: run.jsonl"):
        tables.filled(TEXT.replace("run loading", "other loading"), results)
    with pytest.raises(UsageError, match="no record"):
        tables.filled(TEXT.replace("run loading", "run search"), results)


def test_the_documents_tables_are_current():
    assert tables.stale() == [], "run: make bench-tables"
