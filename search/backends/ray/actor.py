"""What runs in a Ray actor: an objective in a thread, one epoch per `step`, one trial after another."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import Any

from ray.tune import Trainable

from shardwave.search.trial import Assignment
from shardwave.search.workers.worker import DiskFull, prepare, run_trial, worker_name


class ObjectiveTrainable(Trainable):
    """Tune's view of an objective.

    Every result holds `attempt`, `epoch`, `value`, `spent`, `info`, `worker`; the last of a trial that ends by itself also
    `state` and `error`. An exception in the objective is such an end and no error of the actor's, so that Tune retries only
    actors that died.
    """

    objective: Callable[..., None]
    epochs: int
    threads: int
    _prepared = False  # this process
    _broken: str | None = None  # why this process can run no trial

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._attempt = config["attempt"]
        self._results: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()  # to each report: whether the trial stops
        self._waiting = False  # for an answer
        # schedulers want all of these in every result
        self._last: dict[str, Any] = {"epoch": 0, "value": -math.inf, "spent": {}, "info": {}}
        work = Assignment(config["trial"], config["params"], config["attempt"])
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def _run(self, work: Assignment) -> None:
        def send(_: int, epoch: int, value: float, spent: dict[str, float], info: dict[str, Any]) -> bool:
            self._results.put({"epoch": epoch, "value": value, "spent": spent, "info": info})
            return self._answers.get()

        try:
            state, error, info = run_trial(type(self).objective, work, send)
            self._results.put({"state": state, "error": error, "info": info, "done": True})
        except DiskFull as full:
            self._results.put({"broken": str(full), "done": True})

    def step(self) -> dict[str, Any]:
        """The next epoch's result, or how the trial ended."""
        kind = type(self)
        if not kind._prepared:  # here, not in `setup`: Tune starts actors that it then does not need
            kind._prepared, kind._broken = True, prepare(kind.objective, kind.threads)
        if self._broken:
            result: dict[str, Any] = {"broken": self._broken, "done": True}
        else:
            result = self._next()
            if result.get("epoch") == self.epochs:  # nothing can stop it any more: let it finish
                result |= self._next()
        self._last |= {name: value for name, value in result.items() if name in self._last}
        return {**self._last, **result, "worker": worker_name(), "attempt": self._attempt}

    def _next(self, stop: bool = False) -> dict[str, Any]:
        if self._waiting:
            self._answers.put(stop)
        else:
            self._thread.start()
        result = self._results.get()
        self._waiting = "done" not in result
        return result

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        if self._waiting:
            self._next(stop=True)
