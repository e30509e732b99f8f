"""Our search terms in Optuna's: samplers, pruners, distributions, storages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwave.common.errors import UsageError
from shardwave.common.redact import mask_url, redact
from shardwave.search.budget import SearchBudget
from shardwave.search.journal import own_journal, shared_journal
from shardwave.search.space import Choice, Grid, LogUniform, Space

if TYPE_CHECKING:
    import optuna


def optuna_module() -> Any:
    """The package, quiet; raises `UsageError` when it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError("backend optuna needs the package optuna: pip install 'optuna>=5'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Ask the trial for a value of every dimension; grids are categories."""
    params: dict[str, Any] = {}
    for name, dimension in space.dimensions.items():
        if isinstance(dimension, Choice | Grid):
            params[name] = trial.suggest_categorical(name, dimension.values)
        else:
            params[name] = trial.suggest_float(name, dimension.low, dimension.high, log=isinstance(dimension, LogUniform))
    return params


def pruner(budget: SearchBudget) -> Any:
    """The pruner that the budget names."""
    pruners = optuna_module().pruners
    if budget.scheduler == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=budget.grace, reduction_factor=budget.reduction)
    if budget.scheduler == "hyperband":
        return pruners.HyperbandPruner(min_resource=budget.grace, max_resource=budget.epochs, reduction_factor=budget.reduction)
    if budget.scheduler == "median":
        return pruners.MedianPruner(n_warmup_steps=budget.grace - 1)
    return pruners.NopPruner()


def sampler(budget: SearchBudget, seed: int) -> Any:
    """The sampler that the budget names, seeded anew for every trial from (seed, number): neither a resume nor a second machine
    then draws the same starting points again, as one seeded sampler in each process would."""
    optuna = optuna_module()

    def make(number: int) -> Any:
        trial_seed = random.Random(f"sampler {seed} {number}").getrandbits(32)
        if budget.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=trial_seed)
        if budget.sampler == "gp":
            return optuna.samplers.GPSampler(seed=trial_seed)
        return optuna.samplers.RandomSampler(seed=trial_seed)  # never asked: tickets carry their points

    return _per_trial(make)


def _per_trial(make: Callable[[int], Any]) -> Any:
    base: Any = optuna_module().samplers.BaseSampler

    class PerTrialSampler(base):
        """Hands every trial to a sampler of its own."""

        def __init__(self) -> None:
            self._made: dict[int, Any] = {}

        def _of(self, trial: Any) -> Any:
            if trial.number not in self._made:
                self._made[trial.number] = make(trial.user_attrs.get("trial", -1))
            return self._made[trial.number]

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._of(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self._of(trial).sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

        def before_trial(self, study: Any, trial: Any) -> None:
            self._of(trial).before_trial(study, trial)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            self._made.pop(trial.number, make(-1)).after_trial(study, trial, state, values)

    return PerTrialSampler()


def open_storage(url: str | None, journal: Path | None) -> Any:
    """The storage: by URL, or a journal at `journal`, or (neither given) in memory.

    `url`: `postgresql://…`, `mysql://…`, `sqlite:///FILE`; `grpc://HOST:PORT` (Optuna's proxy); `journal:FILE` on a shared disk.
    """
    optuna = optuna_module()
    if url is None and journal is None:
        return optuna.storages.InMemoryStorage()
    if url is None:
        assert journal is not None
        return own_journal(journal)
    if url.startswith("journal:"):
        return shared_journal(Path(url.removeprefix("journal:")))
    if url.startswith("grpc://"):
        host, _, port = url.removeprefix("grpc://").partition(":")
        if not host or not port.isdigit():
            raise UsageError(f"--storage of a gRPC proxy is grpc://HOST:PORT, got {url}")
        return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    if "://" not in url:
        raise UsageError(
            "--storage must be a URL (sqlite:///FILE, postgresql://…, mysql://…, grpc://HOST:PORT, journal:FILE), "
            f"got {mask_url(url)}"
        )
    from sqlalchemy.exc import SQLAlchemyError

    # a connection may have been dropped between epochs; a SQLite file may be read by a dashboard at the same time
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    for _ in range(5):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            remedy = ": pip install 'shardwave[postgres]'" if url.startswith("postgres") else ""
            raise UsageError(f"--storage {mask_url(url)} needs a database driver ({redact(str(error), url)}){remedy}") from None
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            if not any(
                text in str(error) for text in ("already exists", "UNIQUE constraint", "Duplicate entry", "duplicate key")
            ):
                raise
            time.sleep(0.5)  # another machine is making the tables at this moment
    return optuna.storages.RDBStorage(url, engine_kwargs=options)
