"""The interface of search backends, and the backends by name.

Another package adds one by an entry point of the group `shardwave.backends` that names a class with the methods of `Backend`, and
with the attributes `schedulers` and `samplers`: tuples of names, the first of which is the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shardwave.common import plugins
from shardwave.common.errors import UsageError
from shardwave.search.backends.optuna.backend import OptunaBackend
from shardwave.search.backends.random import RandomBackend
from shardwave.search.backends.ray.backend import RayBackend
from shardwave.search.budget import BACKENDS, SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import SearchResult
from shardwave.search.trial_log import TrialLog

KINDS = {"random": RandomBackend, "optuna": OptunaBackend, "ray": RayBackend}
OPTIONS = {"random": (), "optuna": ("storage", "study"), "ray": ("address",)}


class Backend(Protocol):
    """One search backend."""

    name: str

    def run(
        self, objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog | None = None
    ) -> SearchResult:
        """Search; trials already in `log` are kept, those it shows as started and not ended are run again."""


def make_backend(name: str, **options: Any) -> Backend:
    """The backend called `name`; `options` are the backend's own (storage, study; address). Raises `UsageError`."""
    given = {option: value for option, value in options.items() if value is not None}
    kind: Any = KINDS.get(name) or plugins.load("backends", name)
    if kind is None:
        raise UsageError(f"backend must be one of {', '.join((*BACKENDS, *plugins.names('backends')))}, got {name}")
    if name not in KINDS:
        return kind(**given)
    if wrong := given.keys() - OPTIONS[name]:
        takes = f"it takes {' and '.join(f'--{option}' for option in OPTIONS[name])}" if OPTIONS[name] else "it takes none"
        raise UsageError(f"backend {name} does not take {', '.join(f'--{option}' for option in sorted(wrong))}: {takes}")
    return kind(**given)
