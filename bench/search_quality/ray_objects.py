"""Ray's schedulers and searchers as drivers of replays, without Tune's event loop.

PBT cannot be replayed: it changes the parameters of running trials, and the tables hold curves of constant
parameters.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from shardwave.search.backends.ray.backend import ray_module
from shardwave.search.backends.seeding import seeded
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Choice, LogUniform, Space
from shardwave.search.trial import Assignment, Trial
from shardwave.search.trial_log import TrialLog

if TYPE_CHECKING:
    from shardwave.search.backends.ray.actor import TuneConfig, TuneResult

PENDING = 200  # trials that Tune keeps waiting for its own random search; one with another searcher


class RayObjects:
    """Driver of Ray's scheduler and searcher, which calls them in the order in which Tune calls them."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        ray_module()
        self._searcher, self._scheduler = self._parts(space, budget, seed)
        self._epochs = budget.epochs
        self._live: dict[int, RayTrial] = {}

    def _parts(self, space: Space, budget: SearchBudget, seed: int) -> tuple[Any, Any]:
        """Return the searcher and the scheduler."""
        from shardwave.search.backends.ray.parts import make_scheduler, make_searcher

        return make_searcher(space, budget, seed, TrialLog()), make_scheduler(budget, TrialLog())

    def ask(self) -> Assignment | None:
        """Return the next trial of the searcher, or None."""
        trial_id = f"t{len(self._live)}"
        config = self._searcher.suggest(trial_id)
        if not isinstance(config, dict):  # None: no trial now; FINISHED: no further trial
            return None
        self._live[config["trial"]] = RayTrial(trial_id)
        self._scheduler.on_trial_add(self, self._live[config["trial"]])
        return Assignment(config["trial"], config["params"], config["attempt"])

    def report(self, trial: Trial) -> bool:
        """Pass the value to the scheduler and the searcher, and return whether to stop the trial."""
        live, last = self._live[trial.trial], trial.epochs >= self._epochs
        live.result = {
            "epoch": trial.epochs,
            "value": trial.values[-1],
            "training_iteration": trial.epochs,
            "trial_id": live.trial_id,
        }
        if last:  # our actors report `done` with the last epoch, and Tune then does not ask the scheduler
            return False
        decision = self._scheduler.on_trial_result(self, live, live.result)
        if decision != "STOP":
            self._searcher.on_trial_result(live.trial_id, live.result)
        if decision == "PAUSE":
            live.status = "PAUSED"
        return bool(decision != "CONTINUE")

    def end(self, trial: Trial) -> None:
        """Pass the end of the trial to the scheduler and the searcher, unless the trial is paused."""
        live = self._live[trial.trial]
        if live.status == "PAUSED":
            return
        if trial.state == "COMPLETE":
            live.result["state"] = trial.state
        self._scheduler.on_trial_complete(self, live, live.result)
        self._searcher.on_trial_complete(live.trial_id, live.result)
        live.status = "TERMINATED"

    def get_live_trials(self) -> list[RayTrial]:
        """Return the running trials; schedulers call this method of Tune's controller."""
        return [live for live in self._live.values() if live.status == "RUNNING"]


class RayTrial:
    """Fields of Tune's trials that schedulers use."""

    is_saving = False

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.status = "RUNNING"
        self.result: TuneResult = {}


class RayHyperBand(RayObjects):
    """Driver of Ray's HyperBand, which pauses trials, with points of the space or with BOHB's model.

    Args:
        space: Search space.
        budget: The budget; the grace period is not used.
        seed: Seed of the search.
        bohb: Whether BOHB (`hpbandster`) proposes the parameters.
    """

    def __init__(self, space: Space, budget: SearchBudget, seed: int, bohb: bool) -> None:
        self._bohb = bohb
        super().__init__(space, budget, seed)
        self._assignments: dict[int, Assignment] = {}
        self.search_alg = SimpleNamespace(searcher=self._searcher)  # HyperBandForBOHB calls it

    def _parts(self, space: Space, budget: SearchBudget, seed: int) -> tuple[Any, Any]:
        from ray.tune.schedulers import HyperBandForBOHB, HyperBandScheduler

        searcher = BohbSearcher(space, budget, seed) if self._bohb else super()._parts(space, budget, seed)[0]
        return searcher, (HyperBandForBOHB if self._bohb else HyperBandScheduler)(
            time_attr="epoch",
            metric="value",
            mode="max",
            max_t=budget.epochs,
            reduction_factor=budget.reduction_factor,
        )

    def ask(self) -> Assignment | None:
        """Return the trial that the scheduler chooses."""
        self._add_pending()
        chosen = self._scheduler.choose_trial_to_run(self)
        if chosen is None:
            return None
        chosen.status = "RUNNING"
        self._add_pending()
        return next(self._assignments[number] for number, live in self._live.items() if live is chosen)

    def _add_pending(self) -> None:
        """Add trials to the brackets until as many wait as in Tune."""
        waiting = sum(live.status == "PENDING" for live in self._live.values())
        for _ in range(waiting, 1 if self._bohb else PENDING):
            assignment = super().ask()
            if assignment is None:
                return
            self._assignments[assignment.trial] = assignment
            self._live[assignment.trial].status = "PENDING"

    def get_trials(self) -> list[RayTrial]:
        """Return all trials; schedulers call this method of Tune's controller."""
        return list(self._live.values())

    def stop_trial(self, live: RayTrial) -> None:
        """Stop a paused trial; schedulers call this method of Tune's controller."""
        self._scheduler.on_trial_remove(self, live)
        self._searcher.on_trial_complete(live.trial_id)
        live.status = "TERMINATED"


class BohbSearcher:
    """Ray's `TuneBOHB`, whose suggestions become the fields of an `Assignment`."""

    def __init__(self, space: Space, budget: SearchBudget, seed: int) -> None:
        from ray import tune
        from ray.tune.search.bohb import TuneBOHB

        domains = {
            name: tune.choice(list(rule.values))
            if isinstance(rule, Choice)
            else (tune.loguniform if isinstance(rule, LogUniform) else tune.uniform)(rule.low, rule.high)
            for name, rule in space.dimensions.items()
        }
        self._space, self._seed, self._count = space, seed, 0
        self._inner: Any = TuneBOHB(domains, metric="value", mode="max", seed=seed)

    def suggest(self, trial_id: str) -> TuneConfig:
        """Return the next trial; the number of trials has no limit."""
        with seeded(f"bohb {self._seed} {self._count}"):
            drawn = self._inner.suggest(trial_id)
        number, self._count = self._count, self._count + 1
        near = {name: rule.nearest(drawn[name]) for name, rule in self._space.dimensions.items()}
        return {"trial": number, "params": {**near, **self._space.fixed}, "attempt": 1}

    def __getattr__(self, name: str) -> Any:
        """Return a method of `TuneBOHB`."""
        return getattr(self._inner, name)
