"""Tables of learning curves: written, read back, looked up; foreign files refused."""

import json

import numpy as np
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
    return curves.Row(params, [value / 2, value], 0.25)


ROWS = [row(3, 0.1, 1e-3, 0.5), row(3, 0.4, 1e-3, 0.6), row(3, 0.1, 1e-2, 0.7), row(5, 0.1, 1e-3, 0.8)]


def recorded(configuration, seed, params, correct):
    return {
        "configuration": configuration, "seed": seed, "params": params, "seconds": 0.25,
        "val_correct": correct, "val_loss": [[1.5, 0.5], [1.0, 0.25]], "test_correct": [[1, 2], [3, 4]],
    }  # fmt: skip


HEAD = {
    "name": "small", "space": SPACE.describe(), "val_clips": [4, 6], "test_clips": 8,
}  # fmt: skip


def test_written_tables_are_read_back_as_means_over_folds(tmp_path):
    first = {"kernel": 3, "dropout": 0.1, "rate": 1e-3}
    second = {"kernel": 5, "dropout": 0.5, "rate": 1e-2}
    rows = [
        recorded(1, 0, second, [[2, 4], [3, 3]]),
        recorded(0, 1, first, [[0, 4], [0, 6]]),
        recorded(0, 0, first, [[1, 2], [1, 3]]),
    ]
    curves.write(tmp_path / "t.npz", HEAD, rows)
    table = curves.read(tmp_path / "t.npz")
    assert (table.name, table.space, table.epochs, table.best) == ("small", SPACE, 2, 0.7)
    assert [entry.params for entry in table.rows] == [first, second], "other seeds are no rows"
    assert table.rows[0] == curves.Row(first, [0.2, 0.5], 0.25, [1.25, 0.375], [0.25, 0.375], [0.5, 0.5])
    np.testing.assert_allclose(table.repeats, [[[0.2, 0.5], [0.0, 1.0]]])


def test_the_trials_of_a_search_are_a_table(runs, tmp_path):
    space, run = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text("{hidden_size: {grid: [4, 8]}, batch_size: 16}")
    config = SearchConfig("mlp", "random", trials=4, epochs=3, jobs=1, device="cpu", space=space)
    search(runs["mlp"].parent / "set", config, run)
    table = curves.read(run)
    assert len(table.rows) == 4 and table.epochs == 3 and all(row.seconds > 0 for row in table.rows)
    with pytest.raises(UsageError, match="not the run folder of a search"):
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


def test_a_missing_combination_of_categories_is_the_nearest_one():
    space = Space({"kernel": Choice((3, 5, 7, 9)), "dropout": Uniform(0.0, 0.5)})
    rows = [
        curves.Row({"kernel": kernel, "dropout": 0.1 * number}, [0.5], 0.25)
        for number, kernel in enumerate((3, 5, 9))
    ]
    table = curves.Table("t", space, rows)
    assert table.lookup({"kernel": 7, "dropout": 0.1}) is rows[1]
    assert table.lookup({"kernel": 7, "dropout": 0.25}) is rows[2]


def test_tables_that_do_not_cover_the_space_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="covers 1 of 2 cells of kernel"):
        curves.Table("t", SPACE, ROWS[:3])
    with pytest.raises(UsageError, match="no table of learning curves there"):
        curves.read(tmp_path / "none.npz")
    (tmp_path / "other.npz").write_text('{"format": "other"}\n')
    with pytest.raises(UsageError, match=r"name an \.npz file or the run folder of a search"):
        curves.read(tmp_path / "other.npz")
    head = np.frombuffer(json.dumps({"format": "other"}).encode(), np.uint8)
    np.savez(tmp_path / "foreign.npz", head=head)
    with pytest.raises(UsageError, match="its format is 'other'"):
        curves.read(tmp_path / "foreign.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "foreign.npz").read_bytes()[:200])
    with pytest.raises(ShardwaveError, match="damaged"):
        curves.read(tmp_path / "cut.npz")


@pytest.mark.parametrize("path", sorted(curves.FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_the_tables_of_the_project_are_complete(path):
    table = curves.read(path)
    assert path.stat().st_size <= 3e6 and len(table.rows) >= 100 and table.epochs >= 15
    assert all(table.space.contains(entry.params) and entry.seconds > 0 for entry in table.rows)
    assert all(len(entry.losses) == len(entry.test) == table.epochs for entry in table.rows)
    assert table.space.prior and table.repeats is not None and table.repeats.shape[1] >= 3
