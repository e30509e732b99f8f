"""The Ray backend: Ray Tune schedules the trials and runs them in actors, on one machine or a cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwave.common.errors import ShardwaveError
from shardwave.search.backends.random import final_result
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import MAX_ATTEMPTS, SearchResult
from shardwave.search.trial_log import KEPT, TrialLog
from shardwave.search.workers import temporary
from shardwave.search.workers.fork_server import environment
from shardwave.search.workers.worker import threads_per_trial
from shardwave.shards.build import ray_cluster

if TYPE_CHECKING:
    from ray.tune.search import Searcher

OBJECT_STORE = 80 * 2**20  # bytes, Ray's minimum; results need less
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # objectives use paths relative to the user's working directory
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial has no value
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search immediately; ended trials are recorded
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}


class RayBackend:
    """Search with Ray Tune: ASHA, median stopping or none; random, grid or, by OptunaSearch, TPE sampling.

    With the random and grid samplers, the parameters depend on the seed alone.

    Args:
        address: Address of a running cluster; None: Ray is started on this machine.
    """

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def run(
        self,
        objective: Callable[..., None],
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog | None = None,
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        started = time.perf_counter()
        try:
            with temporary.guarded_folder() as folder, ray_running(self._address, objective, budget, folder):
                _tune(objective, folder, space, budget, seed, log, own_cluster=self._address is None)
        except KeyboardInterrupt:
            return SearchResult("INTERRUPTED", log.trials, time.perf_counter() - started)
        return final_result(log, time.perf_counter() - started)


def _tune(
    objective: Callable[..., None],
    folder: Path,
    space: Space,
    budget: SearchBudget,
    seed: int,
    log: TrialLog,
    own_cluster: bool,
) -> None:
    from ray import tune

    from shardwave.search.backends.ray.actor import ObjectiveTrainable
    from shardwave.search.backends.ray.files import FileQueue
    from shardwave.search.backends.ray.parts import (
        AssignmentSearcher,
        LogCallback,
        make_scheduler,
        make_searcher,
    )

    jobs = budget.jobs or 1
    files = (
        FileQueue() if log.folder is not None and hasattr(objective, "store") and not own_cluster else None
    )
    attributes = {
        "objective": staticmethod(objective),
        "epochs": budget.epochs,
        "threads": threads_per_trial(objective, jobs),
        "files": files,
    }
    kind = type("Objective", (ObjectiveTrainable,), attributes)
    missing = budget.trials - len([number for number in log.finished if number < budget.trials])
    if missing <= 0:
        return
    callback = LogCallback(log, budget.epochs, own_cluster, files)

    def fit(name: str, searcher: Searcher, count: int, gpus: float) -> None:
        callback.alone = gpus == 1
        tuner = tune.Tuner(
            tune.with_resources(kind, {"cpu": 1, **({"gpu": gpus} if gpus else {})}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=make_scheduler(budget, log),
                num_samples=count,
                max_concurrent_trials=jobs,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(folder / "tune"),
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=MAX_ATTEMPTS - 1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()

    import ray

    try:
        fit("search", make_searcher(space, budget, seed, log), missing, budget.gpus_per_trial)
        if callback.retries:  # all actors have ended
            retries = AssignmentSearcher(space, budget, seed, log, callback.retries)
            fit("alone", retries, len(callback.retries), 1)
    except (tune.TuneError, ray.exceptions.RayError, ConnectionError) as error:
        message = f"Ray ended the search: {ray_cluster.reason(error)}; continue with --resume"
        raise ShardwaveError(callback.error or message) from error
    finally:
        if files is not None and log.folder is not None:
            files.write(log.folder / KEPT)


@contextlib.contextmanager
def ray_running(
    address: str | None, objective: Callable[..., None], budget: SearchBudget, folder: Path
) -> Iterator[None]:
    """Start Ray or connect to a cluster, and shut down or disconnect on exit.

    Args:
        address: Address of a running cluster; None: start Ray on this machine.
        objective: See `shardwave.search.trial.Objective`.
        budget: The resolved budget.
        folder: Folder for the files of a Ray that is started.

    Yields:
        None.

    Raises:
        ShardwaveError: If this process already uses Ray, or Ray cannot be started or reached.
    """
    ray = ray_module(own_cluster=address is None)
    if ray.is_initialized():
        raise ShardwaveError("Ray is already running in this process: call ray.shutdown() before a search")
    try:
        if address:
            ray_cluster.connect(ray, address)
        else:
            # actors import in the background; workers started before the driver would not be used for actors
            settings = {
                "preload_python_modules": ["shardwave.search.backends.ray.actor"],
                "prestart_worker_first_driver": False,
            }
            with environment(threads_per_trial(objective, budget.jobs or 1)):
                ray_cluster.start(
                    ray,
                    num_cpus=budget.jobs,
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    configure_logging=False,
                    _temp_dir=str(folder / "r"),  # Ray makes it accessible to all users, but not its parent
                    _node_ip_address="127.0.0.1",
                    _system_config=settings,
                )
        yield
    finally:
        ray.shutdown()


def cluster_resources(address: str) -> dict[str, float]:
    """Return the resources of a cluster, summed over its nodes: {"CPU": …, "GPU": …, …}."""
    ray = ray_module()
    ray_cluster.connect(ray, address)
    try:
        return ray.cluster_resources()
    finally:
        ray.shutdown()


def ray_module(own_cluster: bool = False) -> Any:
    """Import Ray with little output.

    Args:
        own_cluster: Set a new authentication token, see `ray_cluster.use_own_token`.

    Returns:
        The package.

    Raises:
        UsageError: If Ray is not installed.
    """
    if own_cluster:
        ray_cluster.use_own_token()
    return ray_cluster.ray_module("backend ray", **QUIET)
