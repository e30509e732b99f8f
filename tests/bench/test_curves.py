"""Tables of learning curves: written, read back, looked up; foreign files refused."""

import pytest

from bench import curves
from preprocess.errors import ShardwaveError, UsageError
from search.space import Choice, LogUniform, Space, Uniform

SPACE = Space({"kernel": Choice((3, 5)), "dropout": Uniform(0.0, 0.5), "rate": LogUniform(1e-4, 1e-2)}, {"width": 8})


def row(kernel, dropout, rate, value):
    return curves.Row({"kernel": kernel, "dropout": dropout, "rate": rate, "width": 8}, [value / 2, value], 0.25)


ROWS = [row(3, 0.1, 1e-3, 0.5), row(3, 0.4, 1e-3, 0.6), row(3, 0.1, 1e-2, 0.7), row(5, 0.1, 1e-3, 0.8)]


def test_what_is_written_is_read_back(tmp_path):
    curves.write(tmp_path / "t.jsonl", {"model": "cnn"}, SPACE, ROWS)
    table = curves.read(tmp_path / "t.jsonl")
    assert (table.name, table.space, table.rows, table.epochs, table.best) == ("t", SPACE, ROWS, 2, 0.8)
    assert table.about["model"] == "cnn" and table.about["environment"]["cpu"]


def test_lookup_takes_the_category_and_then_the_nearest_in_logarithms():
    table = curves.Table("t", {}, SPACE, ROWS)
    assert table.lookup({"kernel": 5, "dropout": 0.5, "rate": 1e-2, "width": 8}) is ROWS[3]
    assert table.lookup({"kernel": 3, "dropout": 0.12, "rate": 2e-3, "width": 8}) is ROWS[0]
    assert table.lookup({"kernel": 3, "dropout": 0.1, "rate": 4e-3, "width": 8}) is ROWS[2]  # linearly, 1e-3 would be nearer
    assert table.lookup({"kernel": 3, "dropout": 0.3, "rate": 1e-3, "width": 8}) is ROWS[1]


def test_tables_that_do_not_cover_the_space_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="covers 1 of 2 cells of kernel"):
        curves.Table("t", {}, SPACE, ROWS[:3])
    with pytest.raises(UsageError, match="no table of learning curves there"):
        curves.read(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text('{"format": "other"}\n')
    with pytest.raises(UsageError, match="its format is 'other'"):
        curves.read(tmp_path / "other.jsonl")
    (tmp_path / "cut.jsonl").write_text('{"format": "shardwave-curves-1", "spa')
    with pytest.raises(ShardwaveError, match="damaged"):
        curves.read(tmp_path / "cut.jsonl")


def test_tables_that_come_with_the_project_are_sound():
    for path in sorted(curves.FOLDER.glob("*.jsonl")):
        table = curves.read(path)
        assert len(table.rows) >= 200 and table.epochs >= 10
        assert all(table.space.contains(entry.params) and entry.seconds > 0 for entry in table.rows)
        assert all(table.lookup(entry.params).values for entry in table.rows[:20])
