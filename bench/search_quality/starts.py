"""Configurations that were good on several recorded tables: the first trials of `--first-trial recorded`.

`shardwave.search.recorded` holds those of all tables. A replay on one table uses those of the other tables,
as a search on new data does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from shardwave.bench.search_quality.curves import Params, Table
from shardwave.common.errors import require

COUNT = 5  # first trials


def best_on_all(tables: Sequence[Table], seed: int | None = None) -> list[Params]:
    """Return the configurations with the best mean ranks over tables.

    Args:
        tables: Tables of the same configurations.
        seed: Only a random half of the configurations is compared, so that the result varies as with other
            recorded configurations; None: all are compared.
    """
    from scipy.stats import rankdata

    params = [row.params for row in tables[0].rows]
    same = all([row.params for row in table.rows] == params for table in tables)
    require(same, "the tables must hold the same configurations", ", ".join(table.name for table in tables))
    compared = list(range(len(params)))
    if seed is not None:
        compared = sorted(random.Random(f"recorded {seed}").sample(compared, len(params) // 2))
    best = np.array([[max(table.rows[number].values) for number in compared] for table in tables])
    ranks = rankdata(-best, axis=1).mean(axis=0)
    return [params[compared[place]] for place in np.argsort(ranks, kind="stable")[:COUNT]]


def starts_of_others(table: Table, tables: Sequence[Table], seed: int | None = None) -> list[Params]:
    """Return the best configurations on the tables other than `table`.

    Args:
        table: The table on which a search is replayed.
        tables: Recorded tables. Those with the search space of `table` are used or, without such, those with
            the most frequent space; `table` itself and its name are left out.
        seed: See `best_on_all`.

    Returns:
        The configurations; empty if there is no other table.
    """
    others = [other for other in tables if other.name != table.name]
    related = [other for other in others if other.space.dimensions == table.space.dimensions]
    if not related and others:
        spaces = [other.space.dimensions for other in others]
        related = [other for other in others if other.space.dimensions == max(spaces, key=spaces.count)]
    return best_on_all(related, seed) if related else []
