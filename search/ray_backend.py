"""Ray Tune: its schedulers and OptunaSearch decide, its actors train, each one trial after another."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from preprocess.errors import ShardwaveError, UsageError
from search.interface import MAX_ATTEMPTS, SearchBudget, SearchResult, cores
from search.random_backend import conclude
from search.results import TrialLog
from search.space import Space

OBJECT_STORE = 80 * 2**20  # bytes; Ray's least, and more than results need
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # objectives name files relative to where the user stands
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial has no value
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search at once; what ended is recorded
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}


class RayBackend:
    """ASHA, median stopping or none; random, grid or (through OptunaSearch) TPE; on this machine or, by `address`, a cluster.

    Promises: with the random and grid samplers the parameters follow from the seed alone.
    """

    name = "ray"
    fuses = False  # one trial per actor

    def __init__(self, address: str | None = None, **options: Any) -> None:
        given = [f"--{name}" for name, value in options.items() if value is not None]
        if given:
            raise UsageError(f"backend ray does not take {', '.join(given)}; for several machines see --address")
        self._address = address

    def run(
        self, objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog | None = None
    ) -> SearchResult:
        """See `Backend.run`."""
        budget, log = budget.resolve(self.name), log or TrialLog()
        started = time.perf_counter()
        try:
            with ray_running(self._address, budget, log.folder, getattr(objective, "modules", ())) as storage:
                _tune(objective, space, budget, seed, log, storage)
        except KeyboardInterrupt:
            return SearchResult("INTERRUPTED", log.trials, time.perf_counter() - started)
        return conclude(log, time.perf_counter() - started)


def _tune(objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog, storage: Path) -> None:
    from ray import tune

    from search.ray_actor import ObjectiveTrainable
    from search.ray_parts import LogCallback, make_searcher, scheduler

    jobs = budget.jobs or 1
    kind = type(
        "Objective",
        (ObjectiveTrainable,),
        {"objective": staticmethod(objective), "epochs": budget.epochs, "threads": max(1, cores() // jobs)},
    )
    missing = budget.trials - len([number for number in log.finished if number < budget.trials])
    if missing <= 0:
        return
    callback = LogCallback(log, budget.epochs)
    tuner = tune.Tuner(
        tune.with_resources(kind, {"cpu": 1, **({"gpu": budget.gpus_per_trial} if budget.gpus_per_trial else {})}),
        tune_config=tune.TuneConfig(
            search_alg=make_searcher(space, budget, seed, log),
            scheduler=scheduler(budget, log),
            num_samples=missing,
            max_concurrent_trials=jobs,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(storage),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=MAX_ATTEMPTS - 1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError:
        if callback.error is None:
            raise
        raise ShardwaveError(callback.error) from None


@contextlib.contextmanager
def ray_running(address: str | None, budget: SearchBudget, folder: Path | None, modules: Sequence[str] = ()) -> Iterator[Path]:
    """Ray, started (or connected to) and shut down; yields a scratch folder for Tune. Leaves no process and no folder.

    The workers that Ray starts at once import `modules` while the main process goes on.
    """
    ray = ray_module(own_cluster=address is None)
    if ray.is_initialized():
        raise ShardwaveError("Ray already runs in this process: call ray.shutdown() before a search")
    note = folder / "ray-temporary" if folder else None  # so that a resume removes what a killed search left
    if note is not None and note.exists():
        shutil.rmtree(note.read_text(), ignore_errors=True)
    root = tempfile.gettempdir()
    scratch = Path(
        tempfile.mkdtemp(prefix="sw-ray-", dir=root if len(root) <= 20 else "/tmp")
    )  # a socket's path has 107 characters
    if note is not None:
        note.write_text(str(scratch))
    python_path = os.environ.get("PYTHONPATH")
    quoted = shlex.quote(sys.executable)  # Ray 2.60 hands it to a shell as it is: a path with spaces starts no worker, and waits
    runtime_env = {"py_executable": quoted} if quoted != sys.executable else None
    try:
        if address:
            try:
                ray.init(address=address, runtime_env=runtime_env, log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                raise ShardwaveError(
                    f"--address {address}: no Ray cluster answers there: {' '.join(str(error).split())}"
                ) from None
        else:
            # objectives import in the actors as they do here
            os.environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            ray.init(
                num_cpus=budget.jobs,
                runtime_env=runtime_env,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                _temp_dir=str(scratch),
                _node_ip_address="127.0.0.1",
                _system_config={"preload_python_modules": ["search.ray_actor", *modules]},
            )
        yield scratch / "tune"
    finally:
        if python_path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = python_path
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
        if note is not None:
            note.unlink(missing_ok=True)


def ray_module(own_cluster: bool = False) -> Any:
    """The package, quiet; raises `UsageError` when it is not installed.

    A cluster of our own is closed to all but this search by a token (which Ray reads when it is imported); left to itself, Ray
    2.60 makes one too, but leaves it in the home folder.
    """
    if own_cluster and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        import ray
    except ImportError:
        raise UsageError("backend ray needs the package ray: pip install 'ray[tune]>=2.60'") from None
    return ray
