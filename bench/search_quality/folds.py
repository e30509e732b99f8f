"""Searches that train a configuration on one fold after another, with Optuna's Wilcoxon pruner.

The other strategies see the mean over the folds after every epoch, and are charged one training for it. Here
a step is the whole training on one fold, and is charged the epochs of a training divided by the number of
folds. A configuration counts as found once all its folds are trained.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping
from typing import Any

from shardwave.bench.search_quality.curves import FOLDS, Row, Table
from shardwave.search.backends.optuna.parts import distributions, optuna_module, sampler
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, Trial


class FoldSteps:
    """A table whose steps are folds instead of epochs.

    Args:
        table: Learning curves with the accuracies of the folds.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def lookup(self, params: Mapping[str, Any]) -> Row:
        """Return the best accuracies of the folds as values, and what they find: the best mean at the end."""
        row = self._table.lookup(params)
        best = max(row.values[: self._table.epochs])
        unknown = [-math.inf] * (FOLDS - 1)
        test = [math.nan] * (FOLDS - 1) + [row.test[row.values.index(best)] if row.test else math.nan]
        seconds = row.seconds * self._table.epochs / FOLDS
        return Row(row.params, row.folds, seconds, test=test, found=[*unknown, best])


class WilcoxonFolds:
    """Driver of multivariate TPE with Optuna's Wilcoxon pruner and its defaults; a step is a fold.

    Args:
        space: Search space.
        budget: Trials; the other fields are not used.
        seed: Seed of the search.
    """

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        optuna = optuna_module()
        self._space, self._distributions, self._left = space, distributions(space), budget.trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = optuna.pruners.WilcoxonPruner()
        self._study: Any = optuna.create_study(
            direction="maximize", sampler=sampler(budget, space, seed, ""), pruner=pruner
        )
        self._live: dict[int, Any] = {}

    def ask(self) -> Assignment | None:
        """Return the next trial, or None."""
        if not self._left:
            return None
        self._left -= 1
        live = self._study.ask(self._distributions)
        self._live[live.number] = live
        return Assignment(live.number, {**live.params, **self._space.fixed})

    def report(self, trial: Trial) -> bool:
        """Report the accuracy of a fold, and return whether to stop the trial."""
        live = self._live[trial.trial]
        live.report(trial.values[-1], trial.epochs)
        return bool(live.should_prune())

    def end(self, trial: Trial) -> None:
        """Report the mean over the trained folds, as Optuna's documentation recommends for stopped trials."""
        self._study.tell(self._live.pop(trial.trial), statistics.fmean(trial.values))
