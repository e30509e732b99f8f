"""The interface of search backends, and the backends by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shardwave.common.errors import UsageError
from shardwave.search.backends.optuna.backend import OptunaBackend
from shardwave.search.backends.random import RandomBackend
from shardwave.search.backends.ray.backend import RayBackend
from shardwave.search.budget import BACKENDS, SearchBudget
from shardwave.search.space import Space
from shardwave.search.trial import SearchResult
from shardwave.search.trial_log import TrialLog


class Backend(Protocol):
    """One search backend."""

    name: str

    def run(
        self, objective: Callable[..., None], space: Space, budget: SearchBudget, seed: int, log: TrialLog | None = None
    ) -> SearchResult:
        """Search; trials already in `log` are kept, those it shows as started and not ended are run again."""


def make_backend(name: str, **options: Any) -> Backend:
    """The backend called `name`; `options` are the backend's own (storage, study; address). Raises `UsageError`."""
    kinds = {kind.name: kind for kind in (RandomBackend, OptunaBackend, RayBackend)}
    if name not in kinds:
        raise UsageError(f"backend must be one of {', '.join(BACKENDS)}, got {name}")
    return kinds[name](**options)
