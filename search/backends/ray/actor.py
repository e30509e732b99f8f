"""The trainable that runs in a Ray actor."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import Any

from ray.tune import Trainable

from shardwave.search.backends.ray.files import FileQueue
from shardwave.search.trial import Assignment, Info
from shardwave.search.workers.worker import DiskFull, prepare, run_trial, worker_name

TuneConfig = dict[str, Any]  # fields of an `Assignment`
TuneResult = dict[str, Any]  # see `ObjectiveTrainable`


class ObjectiveTrainable(Trainable):
    """Runs an objective in a thread, one epoch per `step`, one trial after another.

    Every result has `attempt`, `epoch`, `value`, `spent`, `info` and `worker`; the last result of a trial
    that ends by itself also has `state`, `error` and `out_of_gpu_memory`. An exception in the objective ends
    the trial without an error of the actor, so that Tune retries only after the death of an actor.

    Attributes:
        objective: See `shardwave.search.trial.Objective`.
        epochs: Maximum number of epochs per trial.
        threads: Number of CPU threads per trial.
        files: Queue of the objective's files, if the actor may be on another machine than the run folder.
    """

    objective: Callable[..., None]
    files: FileQueue | None
    epochs: int
    threads: int
    _prepared = False  # whether `prepare` was called in this process
    _broken: str | None = None  # error of `prepare`

    def setup(self, config: TuneConfig) -> None:
        """See `Trainable`; `config` has `trial`, `params` and `attempt`."""
        self._begin(config)

    def _begin(self, config: TuneConfig) -> None:
        self._attempt = config["attempt"]
        self._results: queue.SimpleQueue[TuneResult] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()  # per report, whether the trial stops
        self._waiting = False  # the objective waits for an answer
        # schedulers need these fields in every result
        self._last: TuneResult = {"epoch": 0, "value": -math.inf, "spent": {}, "info": {}}
        work = Assignment(config["trial"], config["params"], config["attempt"])
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def _run(self, work: Assignment) -> None:
        def send(_: int, epoch: int, value: float, spent: dict[str, float], info: Info) -> bool:
            self._results.put({"epoch": epoch, "value": value, "spent": spent, "info": info})
            return self._answers.get()

        try:
            ending = run_trial(type(self).objective, work, send)
            self._results.put(
                {
                    "state": ending.state,
                    "error": ending.error,
                    "info": ending.info,
                    "out_of_gpu_memory": ending.out_of_gpu_memory,
                    "done": True,
                }
            )
        except DiskFull as full:
            self._results.put({"broken": str(full), "done": True})

    def step(self) -> TuneResult:
        """Return the result of the next epoch, or of the end of the trial."""
        kind = type(self)
        if not kind._prepared:  # not in `setup`, because Tune starts actors that it does not use
            if kind.files is not None:
                kind.objective.store = kind.files.put  # type: ignore[attr-defined]
            kind._prepared, kind._broken = True, prepare(kind.objective, kind.threads)
        if self._broken:
            result: TuneResult = {"broken": self._broken, "done": True}
        else:
            result = self._next()
            if result.get("epoch") == self.epochs:  # the last epoch: wait for the end of the trial
                result |= self._next()
        self._last |= {name: value for name, value in result.items() if name in self._last}
        return {**self._last, **result, "worker": worker_name(), "attempt": self._attempt}

    def _next(self, stop: bool = False) -> TuneResult:
        if self._waiting:
            self._answers.put(stop)
        else:
            self._thread.start()
        result = self._results.get()
        self._waiting = "done" not in result
        return result

    def reset_config(self, new_config: TuneConfig) -> bool:
        """See `Trainable`; starts another trial in the same actor."""
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """See `Trainable`; stops the running trial."""
        if self._waiting:
            self._next(stop=True)
