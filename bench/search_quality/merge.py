"""Merge records of replays on the same tables: `python -m shardwave.bench.search_quality.merge OUT NEW...`.

Strategies can then be replayed at different times. The ranks of a record, and the strategies that beat it,
are computed anew from the regrets of all records of its table and number of workers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

from shardwave.bench.harness.record import read
from shardwave.bench.search_quality import measures
from shardwave.common.errors import require
from shardwave.shards.storage.atomic import write_bytes


def merged(rows: Sequence[Any]) -> list[Any]:
    """Return the records, the last of each case, with ranks over all of the same table and workers.

    Args:
        rows: Records of replays, with the same seeds.

    Raises:
        UsageError: Records of a table and a number of workers have different numbers of seeds.
    """
    groups: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = (row["params"]["table"], row["params"]["workers"])
        groups.setdefault(key, {})[row["case"]] = row
    result = []
    for (table, workers), cases in groups.items():
        regrets = {case.split(": ", 1)[1]: row["repeats"] for case, row in cases.items()}
        counts = {len(values) for values in regrets.values()}
        require(
            len(counts) == 1, f"records of {table}, {workers} workers must have equally many seeds", counts
        )
        ranks = rankdata(list(regrets.values()), axis=0).mean(axis=1)
        for row, name, rank in zip(cases.values(), regrets, ranks.tolist(), strict=True):
            beaten = measures.beaten_by(name, regrets)
            result.append({**row, "params": {**row["params"], "rank": round(rank, 2), "beaten_by": beaten}})
    return result


def main(out: Path, *new: Path) -> None:
    """Merge the records in `new` into the file `out`."""
    rows = merged([row for path in (out, *new) for row in read(path)])
    write_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
