"""Tables of learning curves: written, read back, looked up; foreign files refused."""

import pytest

from shardwave.bench.search_quality import curves
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.search.run import SearchConfig, search
from shardwave.search.space import Choice, LogUniform, Space, Uniform

SPACE = Space(
    {"kernel": Choice((3, 5)), "dropout": Uniform(0.0, 0.5), "rate": LogUniform(1e-4, 1e-2)}, {"width": 8}
)


def row(kernel, dropout, rate, value):
    params = {"kernel": kernel, "dropout": dropout, "rate": rate, "width": 8}
    return {"params": params, "values": [value / 2, value], "seconds": 0.25}


ROWS = [row(3, 0.1, 1e-3, 0.5), row(3, 0.4, 1e-3, 0.6), row(3, 0.1, 1e-2, 0.7), row(5, 0.1, 1e-3, 0.8)]


def test_written_tables_are_read_back(tmp_path):
    curves.write(tmp_path / "t.jsonl", {"model": "cnn", "space": SPACE.describe()}, ROWS)
    table = curves.read(tmp_path / "t.jsonl")
    assert (table.name, table.space, table.rows, table.epochs, table.best) == ("t", SPACE, ROWS, 2, 0.8)


def test_the_trials_of_a_search_are_a_table(runs, tmp_path, capsys):
    space, run = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text("{hidden_size: {grid: [4, 8]}, batch_size: 16}")
    config = SearchConfig("mlp", "random", trials=4, epochs=3, jobs=1, device="cpu", space=space)
    search(runs["mlp"].parent / "set", config, run)
    table = curves.read(run)
    assert len(table.rows) == 4 and table.epochs == 3 and all(row["seconds"] > 0 for row in table.rows)
    curves.main(run, tmp_path / "t.jsonl")
    kept = curves.read(tmp_path / "t.jsonl")
    assert kept.space == table.space and [row["params"] for row in kept.rows] == [
        row["params"] for row in table.rows
    ]
    assert "4 configurations of 3 epochs" in capsys.readouterr().out
    with pytest.raises(UsageError, match="exists: name a new file"):
        curves.main(run, tmp_path / "t.jsonl")
    with pytest.raises(UsageError, match="is not the run folder of a search"):
        curves.read(runs["mlp"])
    with pytest.raises(UsageError, match="table random covers 4 of 12 cells"):
        curves.read(runs["random"])


def test_lookup_takes_the_category_and_then_the_nearest_in_logarithms():
    table = curves.Table("t", SPACE, ROWS)
    assert table.lookup({"kernel": 5, "dropout": 0.5, "rate": 1e-2, "width": 8}) is ROWS[3]
    assert table.lookup({"kernel": 3, "dropout": 0.12, "rate": 2e-3, "width": 8}) is ROWS[0]
    assert (
        table.lookup({"kernel": 3, "dropout": 0.1, "rate": 4e-3, "width": 8}) is ROWS[2]
    )  # linearly, 1e-3 would be nearer
    assert table.lookup({"kernel": 3, "dropout": 0.3, "rate": 1e-3, "width": 8}) is ROWS[1]


def test_tables_that_do_not_cover_the_space_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="covers 1 of 2 cells of kernel"):
        curves.Table("t", SPACE, ROWS[:3])
    with pytest.raises(UsageError, match="no table of learning curves there"):
        curves.read(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text('{"format": "other"}\n')
    with pytest.raises(UsageError, match="its format is 'other'"):
        curves.read(tmp_path / "other.jsonl")
    (tmp_path / "cut.jsonl").write_text('{"format": "shardwave-curves-2", "spa')
    with pytest.raises(ShardwaveError, match="damaged"):
        curves.read(tmp_path / "cut.jsonl")


def test_the_projects_table_is_complete():
    table = curves.read(curves.DEFAULT)
    assert len(table.rows) >= 200 and table.epochs >= 10
    assert all(table.space.contains(entry["params"]) and entry["seconds"] > 0 for entry in table.rows)
    assert all(table.lookup(entry["params"])["values"] for entry in table.rows[:20])
