"""The interface of search backends, and the registry of backends.

Other packages add backends by entry points of the group `shardwave.backends`. The entry point refers to a
class with the methods of `Backend` and the attributes `schedulers` and `samplers`, tuples of names with the
default first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shardwave.common import plugins
from shardwave.common.errors import UsageError
from shardwave.search.backends.optuna.backend import OptunaBackend
from shardwave.search.backends.random import RandomBackend
from shardwave.search.backends.ray.backend import RayBackend
from shardwave.search.backends.syne_tune import SyneTuneBackend
from shardwave.search.budget import BACKENDS, SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import SearchResult
from shardwave.search.trial_log import TrialLog

KINDS = {
    "random": RandomBackend,
    "optuna": OptunaBackend,
    "ray": RayBackend,
    "syne-tune": SyneTuneBackend,
}
OPTIONS = {"random": (), "optuna": ("storage", "study"), "ray": ("address",), "syne-tune": ()}


class Backend(Protocol):
    """Interface of a search backend."""

    name: str

    def run(
        self,
        objective: Callable[..., None],
        space: Space,
        budget: SearchBudget,
        seed: int,
        log: TrialLog | None = None,
    ) -> SearchResult:
        """Run a search.

        Args:
            objective: See `shardwave.search.trial.Objective`.
            space: The search space.
            budget: The budget; the backend resolves it.
            seed: Seed of the sampler.
            log: Log of the trials: finished trials are kept, unfinished trials run again. None: a new log in
                memory.

        Returns:
            The result; after Ctrl-C its state is INTERRUPTED.
        """


def make_backend(name: str, **options: Any) -> Backend:
    """Create a backend.

    Args:
        name: One of `BACKENDS`, or the name of an entry point.
        **options: Options of the backend: `storage` and `study` of optuna, `address` of ray. None: not set.

    Raises:
        UsageError: If there is no such backend, or it does not take an option.
    """
    given = {option: value for option, value in options.items() if value is not None}
    kind: Any = KINDS.get(name) or plugins.load("backends", name)
    if kind is None:
        raise UsageError(
            f"backend must be one of {', '.join((*BACKENDS, *plugins.names('backends')))}, got {name}"
        )
    if name not in KINDS:
        extension: Backend = kind(**given)
        return extension
    if wrong := given.keys() - OPTIONS[name]:
        accepted = (
            f"it takes {' and '.join(f'--{option}' for option in OPTIONS[name])}"
            if OPTIONS[name]
            else "it takes none"
        )
        raise UsageError(
            f"backend {name} does not take {', '.join(f'--{option}' for option in sorted(wrong))}: {accepted}"
        )
    backend: Backend = kind(**given)
    return backend
