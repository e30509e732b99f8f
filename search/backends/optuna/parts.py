"""Our search terms in Optuna's: samplers, pruners, distributions, storages."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.common.redact import mask_url, redact
from shardwave.search.budget import SearchBudget
from shardwave.search.journal import open_journal
from shardwave.search.space import Choice, LogUniform, Space


def optuna_module() -> Any:
    """The package, quiet; raises `UsageError` when it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError("backend optuna needs the package optuna: pip install 'optuna>=5'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def distributions(space: Space) -> dict[str, Any]:
    """Optuna's distributions of the searched parameters; grids are categories."""
    made = optuna_module().distributions
    return {
        name: made.CategoricalDistribution(rule.values)
        if isinstance(rule, Choice)
        else made.FloatDistribution(rule.low, rule.high, log=isinstance(rule, LogUniform))
        for name, rule in space.dimensions.items()
    }


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


def sampler(budget: SearchBudget, seed: str) -> Any:
    """The sampler that the budget names, with a generator that follows from `seed`."""
    samplers = optuna_module().samplers
    kinds = {"tpe": samplers.TPESampler, "gp": samplers.GPSampler}  # others are never asked: tickets carry their points
    return kinds.get(str(budget.sampler), samplers.RandomSampler)(seed=random.Random(f"sampler {seed}").getrandbits(32))


def open_storage(url: str | None, journal: Path | None) -> Any:
    """The storage: by URL, or a journal at `journal`, or (neither given) in memory.

    `url`: `postgresql://…`, `mysql://…`, `sqlite:///FILE`; `grpc://HOST:PORT` (Optuna's proxy); `journal:FILE` on a shared disk.
    """
    optuna = optuna_module()
    if url is None:
        return open_journal(journal, shared=False) if journal else optuna.storages.InMemoryStorage()
    if url.startswith("journal:"):
        return open_journal(Path(url.removeprefix("journal:")), shared=True)
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
