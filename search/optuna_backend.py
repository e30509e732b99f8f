"""Optuna: its samplers and pruners decide, over its own storage; our workers train.

Trials are enqueued when the study is made, one ticket per number, so that `--trials` is exact however many machines draw from the
study; tickets of the random and grid samplers carry their parameters, those of the model-based ones leave them to the sampler.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preprocess.errors import ShardwaveError, UsageError
from search.interface import Assignment, SearchBudget, SearchResult, Trial, without_password
from search.optuna_parts import open_storage, optuna_module, pruner, sampler, suggest
from search.owner import STALE_SECONDS, Signs, alive, owner
from search.pool import WorkerPool
from search.random_backend import conclude, run_in_pool
from search.results import TrialLog
from search.space import Space

if TYPE_CHECKING:
    import optuna

POLL_SECONDS = 1.0  # between looks at what other machines do, once there is nothing left to start here


class OptunaBackend:
    """TPE, random, grid or GP; successive halving, Hyperband, median or no pruning.

    Promises: with the random and grid samplers the parameters follow from the seed alone; with TPE or GP and one job,
    everything does (for one version of Optuna). `storage` is a URL (database, `grpc://host:port`, `journal:PATH`); machines
    that name the same storage and `study` share the trials.
    """

    name = "optuna"
    fuses = True

    def __init__(self, storage: str | None = None, study: str | None = None, **options: Any) -> None:
        given = [f"--{name}" for name, value in options.items() if value is not None]
        if given:
            raise UsageError(f"backend optuna does not take {', '.join(given)}; for several machines see --storage and --study")
        if study and not storage:
            raise UsageError("--study needs --storage URL: without it, the study lies in the run folder")
        self._storage, self._study = storage, study or "search"

    def run(
        self, objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog | None = None
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        started = time.perf_counter()
        pool = WorkerPool(objective, budget)  # imports, while the study is opened here
        try:
            driver = StudyDriver(self._storage, self._study, space, budget, seed, log, getattr(objective, "terms", {}))
        except BaseException:
            pool.close()
            raise
        try:
            result = run_in_pool(objective, driver, budget, log, pool)
            driver.collect()
        except optuna_module().exceptions.StorageInternalError as error:
            raise ShardwaveError(_about(self._storage, error) + "; once it answers again, go on with --resume") from error
        finally:
            driver.close()
        seconds = time.perf_counter() - started
        return conclude(log, seconds) if result.state != "INTERRUPTED" else SearchResult(result.state, log.trials, seconds)


class StudyDriver:
    """A study as the pool's driver."""

    independent = False  # and what is asked for, no other machine of the study can have
    poll: float | None = None

    def __init__(
        self,
        storage: str | None,
        name: str,
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog,
        objective_terms: dict[str, Any],
    ) -> None:
        self._space, self._budget, self._log = space, budget, log
        self._live: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}  # epochs told to Optuna, by trial
        self._owner = owner()
        terms = {
            "space": {name: repr(dimension) for name, dimension in space.dimensions.items()},
            "fixed": dict(space.fixed),
            **objective_terms,
            **{key: getattr(budget, key) for key in ("epochs", "scheduler", "grace", "reduction")},
        }
        self._shared, self._sqlite = storage is not None, (storage or "").startswith("sqlite")
        if self._shared and not self._sqlite:
            self.poll = POLL_SECONDS
        self._study, created = self._open(storage, name, seed)
        self._signs = Signs(self._study, self._owner)
        if created:
            for trial in log.trials:  # whose storage was lost: Optuna's own code rebuilds its rungs from the values
                self._replay(trial)
            for lost in log.lost():
                self._enqueue(lost.trial, lost.params, lost.attempt)
            self._tickets(seed)
            self._study.set_user_attr("terms", terms)
        else:
            self._check(name, terms)
            self._retry_stale()
            self._tickets(seed)
            self.collect()

    def _open(self, storage: str | None, name: str, seed: int) -> tuple[optuna.Study, bool]:
        optuna = optuna_module()
        folder = self._log.folder
        parts: dict[str, Any] = {"sampler": sampler(self._budget, seed), "pruner": pruner(self._budget)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                opened = open_storage(storage, folder / "study.journal" if folder else None)
                try:
                    return optuna.create_study(storage=opened, study_name=name, direction="maximize", **parts), True
                except optuna.exceptions.DuplicatedStudyError:
                    return optuna.load_study(storage=opened, study_name=name, **parts), False
            except UsageError:
                raise
            except Exception as error:  # whatever the database's driver raises
                if storage is None:
                    raise
                raise ShardwaveError(_about(storage, error)) from error

    def _check(self, name: str, terms: dict[str, Any]) -> None:
        """Another machine, or an earlier run, made the study: wait until it is complete, and compare what it searches."""
        for _ in range(300):
            stored = self._study.user_attrs.get("terms")
            if stored is not None:
                break
            time.sleep(0.1)
        else:
            raise ShardwaveError(f"study {name} is not of this program, or its maker died early; choose another --study name")
        different = [
            f"{key} {stored.get(key)} (there) and {value} (here)" for key, value in terms.items() if stored.get(key) != value
        ]
        if different:
            what = "of another set" if stored.get("set id") != terms.get("set id") else "another search"
            raise UsageError(f"study {name} is {what}: {'; '.join(different)}; use its settings or another --study name")

    def _enqueue(self, number: int, params: dict[str, Any] | None, attempt: int = 1) -> None:
        searched = {name: value for name, value in (params or {}).items() if name in self._space.dimensions}
        self._study.enqueue_trial(searched, user_attrs={"trial": number, "attempt": attempt})

    def _tickets(self, seed: int) -> None:
        """One ticket for every number that has none."""
        states = optuna_module().trial.TrialState
        taken = {
            trial.user_attrs.get("trial") for trial in self._study.get_trials(deepcopy=False) if not _discarded(trial, states)
        }
        by_us = self._budget.sampler in ("random", "grid")
        for number in range(self._budget.trials):
            if number not in taken:
                point = self._space.point(number, seed, shuffle=self._budget.sampler == "random") if by_us else None
                self._enqueue(number, point)

    def _replay(self, recorded: Trial) -> None:
        self._enqueue(recorded.trial, recorded.params, recorded.attempt)
        live = self._study.ask()
        suggest(live, self._space)
        for epoch, value in enumerate(recorded.values, 1):
            live.report(value, epoch)
            live.should_prune()
        self._live[recorded.trial] = live
        self.end(recorded)

    def _retry_stale(self) -> None:
        """Trials that a killed main process left running are failed, and enqueued again under their numbers."""
        optuna = optuna_module()
        state = optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            left = trial.user_attrs.get("owner")
            if left is None:
                age = time.time() - (trial.datetime_start.timestamp() if trial.datetime_start else 0)
                stale = not self._shared or age > STALE_SECONDS
            else:
                stale = not alive(left) or self._signs.ceased(left)
            if not stale and self._sqlite:
                raise UsageError(
                    "--storage sqlite locks no rows, and another process works on the study: use journal:FILE on a shared disk, "
                    "postgresql://, mysql:// or grpc://HOST:PORT for several at once"
                )
            if stale:
                try:
                    self._study.tell(trial.number, state=state.FAIL)
                except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                    continue  # another machine was quicker
                if (number := trial.user_attrs.get("trial")) is not None:
                    self._enqueue(number, trial.params, trial.user_attrs.get("attempt", 1) + 1)

    def tick(self) -> None:
        """See `Driver`: a sign of life."""
        if self.poll is not None:
            self._signs.give()

    def more(self) -> bool:
        """See `Driver`: until the other machines' trials have ended, one may be left for this one to take over."""
        if self.poll is None:
            return False
        state = optuna_module().trial.TrialState
        self._retry_stale()
        self.collect()
        mine = {live.number for live in self._live.values()}
        unfinished = self._study.get_trials(deepcopy=False, states=(state.RUNNING, state.WAITING))
        return any(trial.number not in mine for trial in unfinished)

    def ask(self) -> Assignment | None:
        """See `Driver`."""
        state = optuna_module().trial.TrialState
        if not self._study.get_trials(deepcopy=False, states=(state.WAITING,)):
            return None
        live = self._study.ask()
        number = live.user_attrs.get("trial")
        if number is None:  # another machine drew the last ticket at this moment
            self._study.tell(live, state=state.FAIL)
            return None
        live.set_user_attr("owner", self._owner)
        self._live[number] = live
        return Assignment(number, {**suggest(live, self._space), **self._space.fixed}, live.user_attrs["attempt"])

    def report(self, trial: Trial) -> bool:
        """See `Driver`."""
        live = self._live[trial.trial]
        if trial.epochs <= self._reported.get(trial.trial, 0):  # its worker died, and it runs again: known already
            return False
        self._reported[trial.trial] = trial.epochs
        try:
            live.report(trial.values[-1], trial.epochs)
        except optuna_module().exceptions.UpdateFinishedTrialError:
            return True  # this process was taken for dead, and another has the trial
        return live.should_prune()

    def end(self, trial: Trial) -> None:
        """See `Driver`."""
        state = optuna_module().trial.TrialState
        live = self._live.pop(trial.trial)
        try:
            live.set_user_attr("row", trial.row())
        except optuna_module().exceptions.UpdateFinishedTrialError:
            return  # see `report`
        if trial.state == "COMPLETE":
            self._study.tell(live, trial.value)
        else:
            self._study.tell(live, state=state.PRUNED if trial.state == "PRUNED" else state.FAIL)

    def close(self) -> None:
        """Close the connection."""
        storage = self._study._storage
        if hasattr(storage, "remove_session"):
            storage.remove_session()

    def collect(self) -> None:
        """Take in what other machines of the study finished."""
        for trial in self._study.get_trials(deepcopy=False):
            row = trial.user_attrs.get("row")
            if row is not None and trial.state.is_finished() and row["trial"] not in self._log.finished:
                self._log.add(Trial.from_row(row))


def _about(storage: str | None, error: Exception) -> str:
    return f"--storage {without_password(storage or 'of the run folder')}: {' '.join(str(error).split())[:300]}"


def _discarded(trial: optuna.trial.FrozenTrial, states: Any) -> bool:
    """Failed by us (stale or surplus), not by its objective."""
    return trial.state == states.FAIL and "row" not in trial.user_attrs
