"""Optuna: its samplers and pruners decide, over its own storage; our workers train.

Trials are enqueued when the study is made, one ticket per number, so that `--trials` is exact however many machines draw from the
study; tickets of the random and grid samplers carry their parameters, those of the model-based ones leave them to the sampler.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.common.redact import mask_url, redact
from shardwave.search.backends.optuna.owner import STALE_SECONDS, Heartbeat, alive, ended, owner
from shardwave.search.backends.optuna.parts import distributions, open_storage, optuna_module, pruner, sampler
from shardwave.search.backends.optuna.sqlite_lock import only_search_on
from shardwave.search.backends.random import conclude, run_in_pool
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import Assignment, SearchResult, Trial
from shardwave.search.trial_log import TrialLog
from shardwave.search.workers.pool import Driver, WorkerPool

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"  # in the run folder, where no --storage is given
POLL_SECONDS = 1.0  # between looks at what other machines do, once there is nothing left to start here


class OptunaBackend:
    """TPE, random, grid or GP; successive halving, Hyperband, median or no pruning.

    Promises: with the random and grid samplers the parameters follow from the seed alone; with TPE or GP and one job,
    everything does (for one version of Optuna). `storage` is a URL (database, `grpc://host:port`, `journal:PATH`); machines
    that name the same storage and `study` share the trials.
    """

    name = "optuna"

    def __init__(self, storage: str | None = None, study: str | None = None) -> None:
        if study and not storage:
            raise UsageError("--study needs --storage URL: without it, the study lies in the run folder")
        self._storage, self._study = storage, study or "search"

    def run(
        self, objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog | None = None
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        started = time.perf_counter()
        with only_search_on(self._storage), _storage_errors(self._storage):
            pool = WorkerPool(objective, budget)  # imports, while the study is opened here
            driver = StudyDriver(self._storage, self._study, space, budget, seed, log, getattr(objective, "terms", {}))
            try:
                result = run_in_pool(objective, driver, budget, log, pool)
                driver.collect()
            finally:
                driver.close()
        seconds = time.perf_counter() - started
        return conclude(log, seconds) if result.state != "INTERRUPTED" else SearchResult(result.state, log.trials, seconds)


class StudyDriver(Driver):
    """A study as the pool's driver."""

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
        self._space, self._budget, self._log, self._seed = space, budget, log, seed
        self._distributions = distributions(space)
        self._live: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}  # epochs told to Optuna, by trial
        self._owner = owner()
        terms = {
            "space": {name: repr(dimension) for name, dimension in space.dimensions.items()},
            "fixed": dict(space.fixed),
            **objective_terms,
            **{key: getattr(budget, key) for key in ("epochs", "scheduler", "grace", "reduction")},
        }
        self._alone = storage is None or storage.startswith("sqlite")  # no other process works on the study (`only_search_on`)
        if not self._alone:
            self.poll = POLL_SECONDS
        self._study, created = self._open(storage, name, seed)
        self._heartbeat = Heartbeat(self._study, self._owner)
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
        """The study, and whether it is new. A damaged one in the run folder, or one that lacks known trials, is made anew."""
        optuna = optuna_module()
        journal = self._log.folder / JOURNAL if self._log.folder else None
        parts: dict[str, Any] = {"sampler": sampler(self._budget, f"{seed}"), "pruner": pruner(self._budget)}

        def create_or_load() -> tuple[Any, bool]:
            opened = self._storage = open_storage(storage, journal)
            try:
                return optuna.create_study(storage=opened, study_name=name, direction="maximize", **parts), True
            except optuna.exceptions.DuplicatedStudyError:
                study = optuna.load_study(storage=opened, study_name=name, **parts)
            if self._alone and storage is not None and self._was_left_unfinished(study):
                optuna.delete_study(storage=opened, study_name=name)
                return create_or_load()
            return study, False

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                study, created = create_or_load()
                lack = None if created or storage is not None else self._lack(study)
            except Exception as error:  # whatever a database's driver raises, or Optuna when it replays a damaged journal
                if isinstance(error, ShardwaveError) or (storage is None and isinstance(error, OSError)):
                    raise
                if storage is not None:
                    raise ShardwaveError(_about(storage, error)) from error
                lack = f"is damaged ({' '.join(str(error).split()) or type(error).__name__})"
            if lack is None or journal is None:
                return study, created
            os.replace(journal, journal.with_name(f"{JOURNAL}.damaged"))
            say(f"{journal} {lack}: the study is made anew from trials.jsonl; the old one is now {JOURNAL}.damaged")
            return create_or_load()

    def _was_left_unfinished(self, study: optuna.Study) -> bool:
        """Whether a search of ours was killed before it had written what the study is about."""
        ours = all("trial" in trial.user_attrs for trial in study.get_trials(deepcopy=False))
        return ours and "terms" not in study.user_attrs and study.user_attrs.keys() <= {"terms"}

    def _lack(self, study: optuna.Study) -> str | None:
        """What is missing in the study of the run folder, after a kill, a full disk or a power failure."""
        if "terms" not in study.user_attrs:
            return "was not completed"
        rows = (trial.user_attrs.get("row") for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())
        missing = self._log.finished.keys() - {row["trial"] for row in rows if row is not None}
        return f"lacks the trials {', '.join(map(str, sorted(missing)))}" if missing else None

    def _check(self, name: str, terms: dict[str, Any]) -> None:
        """Another machine, or an earlier run, made the study: wait until it is complete, and compare what it searches."""
        for _ in range(1 if self._alone else 300):
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
        live = self._study.ask(self._distributions)
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
                stale = self._alone or age > STALE_SECONDS
            else:
                stale = self._alone or not alive(left) or self._heartbeat.is_stale(left)
            if stale:
                row = trial.user_attrs.get("row")  # it had ended when its process was killed
                try:
                    self._tell(trial.number, row["state"] if row else "FAILED", row["value"] if row else None)
                except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                    continue  # another machine was quicker
                if row is None and (number := trial.user_attrs.get("trial")) is not None:
                    drawn = {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # it may have died before it had all
                    self._enqueue(number, drawn, trial.user_attrs.get("attempt", 1) + 1)

    def tick(self) -> None:
        """See `Driver`: writes a heartbeat."""
        if self.poll is not None:
            self._heartbeat.beat()

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
        waiting = self._study.get_trials(deepcopy=False, states=(state.WAITING,))
        if not waiting:
            return None
        # a sampler for every trial: neither a resumed search nor another machine draws the same starting points again
        drawn_by = "" if self._alone else f" {self._owner['search']}"
        self._study.sampler = sampler(self._budget, f"{self._seed} {waiting[0].user_attrs.get('trial')}{drawn_by}")
        live = self._study.ask(self._distributions)
        number = live.user_attrs.get("trial")
        if number is None:  # another machine drew the last ticket at this moment
            self._study.tell(live, state=state.FAIL)
            return None
        live.set_user_attr("owner", self._owner)
        self._live[number] = live
        return Assignment(number, {**live.params, **self._space.fixed}, live.user_attrs["attempt"])

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
        live = self._live.pop(trial.trial)
        try:
            live.set_user_attr("row", trial.row())
        except optuna_module().exceptions.UpdateFinishedTrialError:
            return  # see `report`
        self._tell(live, trial.state, trial.value)

    def _tell(self, trial: optuna.Trial | int, ended: str, value: float | None) -> None:
        state = optuna_module().trial.TrialState
        if ended == "COMPLETE":
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=state.PRUNED if ended == "PRUNED" else state.FAIL)

    def close(self) -> None:
        """Close the connection; trials that were left running are free for others."""
        ended(self._owner)
        if hasattr(self._storage, "engine"):  # a database's
            self._storage.remove_session()
            self._storage.engine.dispose()  # before the lock on a SQLite file is given up

    def collect(self) -> None:
        """Take in what other machines of the study finished."""
        for trial in self._study.get_trials(deepcopy=False):
            row = trial.user_attrs.get("row")
            if row is not None and trial.state.is_finished() and row["trial"] not in self._log.finished:
                self._log.add(Trial.from_row(row))


@contextlib.contextmanager
def _storage_errors(storage: str | None) -> Iterator[None]:
    """Turn what a database or a proxy fails with while a search runs into one line that names it."""
    try:
        yield
    except ShardwaveError:
        raise
    except Exception as error:
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
        if not kinds & {"optuna.OptunaError", "sqlalchemy.SQLAlchemyError", "grpc.RpcError"}:
            raise
        raise ShardwaveError(_about(storage, error) + "; once it answers again, go on with --resume") from error


def _about(storage: str | None, error: BaseException) -> str:
    """The storage and, of an error and its cause, what a driver says; without passwords, which drivers repeat."""
    if storage is None:
        return f"the study in the run folder: {' '.join(str(error).split())[:300]}"
    message = f"{error} {error.__cause__ or ''}"
    return f"--storage {mask_url(storage)}: {redact(' '.join(message.split()), storage)[:300]}"


def _discarded(trial: optuna.trial.FrozenTrial, states: Any) -> bool:
    """Failed by us (stale or surplus), not by its objective."""
    return trial.state == states.FAIL and "row" not in trial.user_attrs
