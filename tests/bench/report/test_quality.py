"""Tables of replayed searches in the documents."""

from shardwave.bench.harness.record import Record, measured
from shardwave.bench.report import quality


def row(table, name, regrets):
    params = {
        "table": table,
        "workers": 1,
        "trainings": 20,
        "regret": [[point, value - 0.1, value, value + 0.1] for point, value in regrets.items()],
    }
    return Record("search-quality", f"{table}, 1 workers: {name}", "ours", "regret", [0.1, 0.2], params).row()


def test_budgets_are_means_over_the_tables_of_the_strategies_that_have_all():
    long = dict.fromkeys((0.5, 1, 2, 5, 10, 20, 50), 0.4)
    rows = [
        row("a", "steady", long),
        row("b", "steady", dict.fromkeys(long, 0.2)),
        row("a", "better", {**long, 20: 0.1}),
        row("b", "better", {**long, 50: 0.0}),
        row("a", "short", {0.5: 0.0, 20: 0.0}),
        row("b", "short", {0.5: 0.0, 20: 0.0}),
        row("a", "one table", dict.fromkeys(long, 0.0)),
    ]
    assert quality.document_table(measured(rows), "budgets").splitlines()[2:] == [
        "| better | 0.40 | 0.40 | 0.40 | 0.40 | 0.25 | 0.20 |",
        "| steady | 0.30 | 0.30 | 0.30 | 0.30 | 0.30 | 0.30 |",
    ]
