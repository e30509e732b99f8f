"""Starts of a search: the best configurations on other tables."""

import pytest

from shardwave.bench.search_quality import curves, starts
from shardwave.common.errors import UsageError
from shardwave.search.recorded import STARTS
from shardwave.search.space import Space, Uniform

LINE = Space({"x": Uniform(0.0, 1.0)})
XS = [number / 20 for number in range(21)]


def table(name, values, space=LINE, xs=XS):
    return curves.Table(name, space, [curves.Row({"x": x}, [0.1, values(x)], 1.0) for x in xs])


def test_ranks_are_averaged_and_the_own_table_is_left_out():
    low, high = table("low", lambda x: 1 - abs(x - 0.4)), table("high", lambda x: 1 - abs(x - 0.6))
    assert 0.4 <= starts.best_on_all([low, high])[0]["x"] <= 0.6
    assert starts.starts_of_others(low, [low, high])[0] == {"x": 0.6}
    assert starts.starts_of_others(low, [low]) == []
    halves = {starts.best_on_all([low, high], seed)[0]["x"] for seed in range(20)}
    assert len(halves) > 1 and all(0.3 <= x <= 0.7 for x in halves)


def test_tables_of_another_space_are_used_if_there_is_no_other():
    wide = table("wide", lambda x: x, Space({"x": Uniform(0.0, 2.0)}))
    one, two = table("one", lambda x: 1 - x), table("two", lambda x: 1 - x)
    assert starts.starts_of_others(wide, [wide, one, two])[0] == {"x": 0.0}
    assert starts.starts_of_others(one, [wide, one, two])[0] == {"x": 0.0}
    with pytest.raises(UsageError, match="must hold the same configurations, got one, short"):
        starts.best_on_all([one, table("short", lambda x: x, xs=XS[:9])])


def test_the_starts_of_the_project_are_those_of_its_tables():
    tables = [curves.read(path) for path in sorted(curves.FOLDER.glob("mlp-*.npz"))]
    for stored, best in zip(STARTS["mlp"], starts.best_on_all(tables), strict=True):
        assert stored == pytest.approx(best, rel=5e-3)
