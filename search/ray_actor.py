"""What runs in a Ray actor: an objective, one epoch per `step`, one trial after another in the same process."""

from __future__ import annotations

import math
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Trainable

from search.interface import TrialStopped, check_report
from search.worker import attempt, import_all, run_trial


class ObjectiveTrainable(Trainable):
    """Turns an objective that reports into a trainable that is asked.

    The objective runs in a thread that waits in `report` until Tune asks for the next epoch, or ends the trial. Every result
    tells `attempt`, `epoch`, `value`, `spent`, `info`; the last of a trial that ends by itself also `state` and `error`. An
    exception in the objective is such an end and no error of the actor's, so that Tune retries only actors that died.
    """

    objective: Callable[..., None]
    epochs: int
    threads: int
    _start_error: str | None = None  # of this process: None before it was prepared, empty when all is well

    def setup(self, config: dict[str, Any]) -> None:
        kind = type(self)
        if kind._start_error is None:
            kind._start_error = attempt(lambda: import_all(kind.objective)) or ""
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(kind.threads)
            kind._start_error = kind._start_error or attempt(getattr(kind.objective, "prepare", None)) or ""
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._report = _Report(config["trial"], type(self).epochs)
        self._attempt = config["attempt"]
        self._last: dict[str, Any] = {"epoch": 0, "value": -math.inf, "spent": {}}  # schedulers want these in every result
        self._thread = threading.Thread(target=self._work, args=(self._report, config["params"]), daemon=True)
        self._thread.start()

    def _work(self, report: _Report, params: dict[str, Any]) -> None:
        try:
            report.wait()
        except TrialStopped:
            return
        state, error = run_trial(type(self).objective, params, report)
        report.told.put({"state": state, "error": error})

    def step(self) -> dict[str, Any]:
        """The next epoch's result, or how the trial ended."""
        if type(self)._start_error:
            return {"broken": type(self)._start_error, "epoch": 0, "value": -math.inf, "done": True}
        report = self._report
        report.go.put(True)
        result = report.told.get()
        if result.get("epoch") == type(self).epochs:  # nothing can stop it any more: let it finish
            report.go.put(True)
            ending = report.told.get()
            result |= {"state": "FAILED", "error": "more epochs reported than asked for"} if "epoch" in ending else ending
        if "state" in result:
            result["done"] = True
        self._last = {key: value for key, value in result.items() if key in ("epoch", "value", "spent")} or self._last
        return {
            **self._last,
            **result,
            "info": report.info,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "attempt": self._attempt,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._report.go.put(False)
        self._thread.join()


class _Report:
    """The objective's side of the conversation."""

    def __init__(self, trial: int, epochs: int) -> None:
        self.trial = trial
        self.info: dict[str, Any] = {}
        self.go: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._epoch = 0

    def wait(self) -> None:
        if not self.go.get():
            raise TrialStopped

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        self._epoch = check_report(self._epoch, epoch, value)
        self.told.put({"epoch": epoch, "value": float(value), "spent": dict(spent or {})})
        self.wait()
