"""Optuna's samplers, pruners, distributions and storages for a search."""

from __future__ import annotations

import random
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwave.common.errors import UsageError
from shardwave.common.redact import mask_url, redact
from shardwave.search.budget import SearchBudget
from shardwave.search.journal import open_journal
from shardwave.search.space import Choice, LogUniform, Space

if TYPE_CHECKING:
    import optuna


def optuna_module() -> Any:
    """Import Optuna and set its log level to ERROR; raise UsageError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError("backend optuna needs the package optuna: pip install 'optuna>=5'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return Optuna's distributions of the searched parameters, by name; a `Grid` is categorical."""
    module = optuna_module().distributions
    return {
        name: module.CategoricalDistribution(rule.values)
        if isinstance(rule, Choice)
        else module.FloatDistribution(rule.low, rule.high, log=isinstance(rule, LogUniform))
        for name, rule in space.dimensions.items()
    }


def pruner(budget: SearchBudget) -> Any:
    """Create the pruner for the scheduler of the budget."""
    pruners = optuna_module().pruners
    if budget.scheduler == "asha":
        return pruners.SuccessiveHalvingPruner(
            min_resource=budget.grace_period, reduction_factor=budget.reduction_factor
        )
    if budget.scheduler == "hyperband":
        return pruners.HyperbandPruner(
            min_resource=budget.grace_period,
            max_resource=budget.epochs,
            reduction_factor=budget.reduction_factor,
        )
    if budget.scheduler == "median":
        return pruners.MedianPruner(n_warmup_steps=budget.grace_period - 1)
    return pruners.NopPruner()


def sampler(budget: SearchBudget, space: Space, seed: int, trial: str) -> Any:
    """Create the sampler of the budget.

    Args:
        budget: The resolved budget.
        space: The search space.
        seed: Seed of the search.
        trial: Text that identifies the next trial; with the seed, it determines what the sampler draws.

    Returns:
        The sampler; a random sampler for `random` and `grid`, whose trials are enqueued with their
            parameters.

    Raises:
        UsageError: If the sampler needs a package that is not installed.
    """
    drawn = random.Random(f"sampler {seed}{trial}").getrandbits(32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna_module().exceptions.ExperimentalWarning)
        return _sampler(budget, space, seed, drawn)


def _sampler(budget: SearchBudget, space: Space, seed: int, drawn: int) -> Any:
    """Create the sampler; `drawn` is the seed of the next trial."""
    samplers = optuna_module().samplers
    if budget.sampler in ("tpe", "tpe-univariate"):
        # constant_liar: running trials count as bad ones, so that several workers do not crowd
        return samplers.TPESampler(seed=drawn, multivariate=budget.sampler == "tpe", constant_liar=True)
    if budget.sampler == "gp":
        return samplers.GPSampler(seed=drawn)
    if budget.sampler == "qmc":  # one sequence for all trials and machines, so not seeded by `drawn`
        once = random.Random(f"sequence {seed}").getrandbits(32)
        return samplers.QMCSampler(seed=once, scramble=True, warn_independent_sampling=False)
    if budget.sampler == "cmaes":  # draws categorical parameters at random
        try:
            import cmaes  # noqa: F401  # Optuna imports it in the first trial
        except ImportError:
            raise UsageError(
                "sampler cmaes needs the package cmaes: pip install 'shardwave[cmaes]'"
            ) from None
        # successive halving stops most trials; without them, a generation would take too long
        stopped = budget.scheduler in ("asha", "hyperband")
        return samplers.CmaEsSampler(
            seed=drawn, consider_pruned_trials=stopped, warn_independent_sampling=False
        )
    if budget.sampler == "priorband":
        from shardwave.search.backends.optuna.priorband import PriorBandSampler

        return PriorBandSampler(space, distributions(space), budget, drawn)
    return samplers.RandomSampler(seed=drawn)


def open_storage(url: str | None, journal: Path | None) -> Any:
    """Open an Optuna storage.

    Args:
        url: `postgresql://…`, `mysql://…`, `sqlite:///FILE`, `grpc://HOST:PORT` (Optuna's gRPC proxy), or
            `journal:FILE` on a shared disk; None: use `journal`.
        journal: File of a journal with one writer; None: in memory.

    Returns:
        The storage.

    Raises:
        UsageError: If the URL is invalid or the database driver is not installed.
    """
    optuna = optuna_module()
    if url is None:
        return open_journal(journal, shared=False) if journal else optuna.storages.InMemoryStorage()
    if url.startswith("journal:"):
        return open_journal(Path(url.removeprefix("journal:")), shared=True)
    if url.startswith("grpc://"):
        host, _, port = url.removeprefix("grpc://").partition(":")
        if not host or not port.isdigit():
            raise UsageError(f"--storage of a gRPC proxy must be grpc://HOST:PORT, got {url}")
        return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    if "://" not in url:
        raise UsageError(
            "--storage must be a URL (sqlite:///FILE, postgresql://…, mysql://…, grpc://HOST:PORT, "
            f"journal:FILE), got {mask_url(url)}"
        )
    from sqlalchemy.exc import SQLAlchemyError

    # pool_pre_ping: the server may close idle connections; timeout: another program may read a SQLite file
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    for _ in range(5):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            remedy = ": pip install 'shardwave[postgres]'" if url.startswith("postgres") else ""
            raise UsageError(
                f"--storage {mask_url(url)} needs a database driver ({redact(str(error), url)}){remedy}"
            ) from None
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            if not any(
                text in str(error)
                for text in ("already exists", "UNIQUE constraint", "Duplicate entry", "duplicate key")
            ):
                raise
            time.sleep(0.5)  # another machine is creating the tables
    return optuna.storages.RDBStorage(url, engine_kwargs=options)
