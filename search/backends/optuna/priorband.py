"""PriorBand: an Optuna sampler that mixes uniform samples, samples around a prior and around the best trial.

Mallik et al., "PriorBand: Practical Hyperparameter Optimization in the Age of Deep Learning", NeurIPS 2023.
The share of uniform samples, the weights of prior and best trial, and the width of the distributions are
those of its section 5. Two things are simpler: the rungs are those of the pruner of the study, which the
sampler does not know, so a trial of a pruner with rungs counts as one of the lowest rung; and the
distribution around the prior or the best trial has one form for sampling and for weighting.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from shardwave.search.budget import SearchBudget
from shardwave.search.space import Choice, Dimension, LogUniform, Space

WIDTH = 0.25  # standard deviation around a centre, as a fraction of the range of a parameter
KEPT = 0.5  # probability that a category, or a number around the best trial, is that of the centre


class PriorBandSampler(BaseSampler):
    """Sampler for studies that maximize.

    Args:
        space: The search space; a parameter without a prior is drawn uniformly in its place.
        distributions: Optuna's distributions of the searched parameters, by name.
        budget: The resolved budget.
        seed: Seed of the samples.
    """

    def __init__(
        self, space: Space, distributions: dict[str, BaseDistribution], budget: SearchBudget, seed: int
    ) -> None:
        self._space, self._distributions, self._factor = space, distributions, budget.reduction_factor
        self._generator = random.Random(seed)
        has_rungs = budget.scheduler in ("asha", "hyperband")
        rung = 0 if has_rungs else int(math.log(budget.epochs / budget.grace_period, self._factor))
        self._uniform = 1 / (1 + self._factor**rung)  # share of uniform samples, equation 2

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the distributions of all searched parameters, which `sample_relative` draws."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the values of all searched parameters.

        Args:
            study: The study.
            trial: The trial that starts.
            search_space: Not used.
        """
        dimensions, prior = self._space.dimensions, self._space.prior
        top = self._top(study)
        prior_weight = sum(weight * self._density(prior, params) for weight, params in top)
        best_weight = sum(weight * self._density(top[0][1], params) for weight, params in top) if top else 0.0
        centred = prior_weight + best_weight
        best_share = best_weight / centred if centred else 0.0
        if self._generator.random() < self._uniform:
            return {name: rule.draw(self._generator) for name, rule in dimensions.items()}
        if top and self._generator.random() < best_share:
            best = top[0][1]
            return {
                name: best[name] if self._generator.random() < KEPT else self._near(rule, best[name])
                for name, rule in dimensions.items()
            }
        return {
            name: self._near(rule, prior[name]) if name in prior else rule.draw(self._generator)
            for name, rule in dimensions.items()
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter that `sample_relative` has not drawn, uniformly.

        Args:
            study: The study.
            trial: The trial that starts.
            param_name: Name of the parameter.
            param_distribution: Not used.
        """
        return self._space.dimensions[param_name].draw(self._generator)

    def _top(self, study: Study) -> list[tuple[int, dict[str, Any]]]:
        """Return the best 1/factor of the trials at the last epoch that `factor` of them reached.

        Returns:
            (weight, parameters), the best trial first: its weight is the number of trials returned, that of
                the last 1.
        """
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = study.get_trials(deepcopy=False, states=states)
        lengths = sorted((len(trial.intermediate_values) for trial in trials), reverse=True)
        if len(lengths) < self._factor or lengths[self._factor - 1] == 0:
            return []
        epoch = lengths[self._factor - 1]
        reached = [trial for trial in trials if epoch in trial.intermediate_values]
        reached.sort(key=lambda trial: (-trial.intermediate_values[epoch], trial.number))
        best = reached[: max(1, len(reached) // self._factor)]
        return [(len(best) - place, trial.params) for place, trial in enumerate(best)]

    def _near(self, rule: Dimension, centre: Any) -> Any:
        """Draw a value from the distribution around `centre`."""
        if isinstance(rule, Choice):
            return centre if self._generator.random() < KEPT else rule.draw(self._generator)
        place = _position(rule, centre)
        while not 0 <= (drawn := self._generator.gauss(place, WIDTH)) <= 1:
            pass
        if isinstance(rule, LogUniform):
            value = math.exp(math.log(rule.low) + drawn * math.log(rule.high / rule.low))
        else:
            value = rule.low + drawn * (rule.high - rule.low)
        return min(max(value, rule.low), rule.high)

    def _density(self, centre: Mapping[str, Any], params: Mapping[str, Any]) -> float:
        """Return the density of `params` in the distribution around `centre`, on the unit cube."""
        density = 1.0
        for name in centre.keys() & params.keys():
            rule = self._space.dimensions[name]
            if isinstance(rule, Choice):
                count = len(rule.values)
                density *= count * ((1 - KEPT) / count + KEPT * (params[name] == centre[name]))
            else:
                normal = NormalDist(_position(rule, centre[name]), WIDTH)
                density *= normal.pdf(_position(rule, params[name])) / (normal.cdf(1) - normal.cdf(0))
        return density


def _position(rule: Dimension, value: float) -> float:
    """Return the position of a number in its range, from 0 to 1; of its logarithm for `LogUniform`."""
    assert not isinstance(rule, Choice)
    if isinstance(rule, LogUniform):
        return math.log(value / rule.low) / math.log(rule.high / rule.low)
    return (value - rule.low) / (rule.high - rule.low)
