"""What runs in a Ray actor: the conversation with a worker process, one epoch per `step`, one trial after another.

The actor itself imports no torch. Its worker is forked from the template that the search's main process runs, which is ready long
before an actor is, or on another machine from one that the actor starts there.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ray.tune import Trainable

from search.template import Template, connect, threads
from search.trial import Assignment


class ObjectiveTrainable(Trainable):
    """Tune's view of an objective.

    Every result tells `attempt`, `epoch`, `value`, `spent`, `info`, `worker`; the last of a trial that ends by itself also
    `state` and `error`. An exception in the objective is such an end and no error of the actor's, so that Tune retries only
    actors that died, or lost their worker.
    """

    objective: Callable[..., None]
    epochs: int
    jobs: int
    main: tuple[str, str]  # the host of the search's main process, and its template's address
    _worker: Connection | None = None  # of this process, kept from trial to trial
    _name = ""
    _broken: str | None = None

    def setup(self, config: dict[str, Any]) -> None:
        kind = type(self)
        if kind._worker is None:
            kind._worker = _open(kind)
            _started = kind._worker.recv()
            ready, told = kind._worker.recv()
            kind._name, kind._broken = (told, None) if ready == "ready" else ("", told)
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._work = Assignment(config["trial"], config["params"], config["attempt"])
        self._state = "new"  # then waiting (in a report, for our answer), then over
        # schedulers want all of these in every result
        self._last: dict[str, Any] = {"epoch": 0, "value": -math.inf, "spent": {}, "info": {}}

    def step(self) -> dict[str, Any]:
        """The next epoch's result, or how the trial ended."""
        if type(self)._broken:
            return self._ending()
        try:
            told = self._ask(self._work if self._state == "new" else False)
            if told.get("epoch") == self.epochs and "state" not in told:  # nothing can stop it any more: let it finish
                told |= self._ask(False)
            if type(self)._broken:
                return self._ending()
        except (EOFError, ConnectionError):
            type(self)._worker = None
            raise RuntimeError("the trial's worker process was killed") from None
        if "state" in told:
            told["done"] = True
        self._last |= {name: value for name, value in told.items() if name in self._last}
        return {**self._last, **told, "worker": self._name, "attempt": self._work.attempt}

    def _ending(self) -> dict[str, Any]:
        """The result that ends the search."""
        return {**self._last, "broken": type(self)._broken, "done": True}

    def _ask(self, message: Any) -> dict[str, Any]:
        """Send, and return what the worker then tells: a report, or the trial's end."""
        link = type(self)._worker
        assert link is not None
        link.send(message)
        kind, *told = link.recv()
        if kind == "report":
            self._state = "waiting"
            _, epoch, value, spent, info = told
            return {"epoch": epoch, "value": value, "spent": spent, "info": info}
        self._state = "over"
        if kind == "broken":
            type(self)._broken = told[0]
            return {}
        _idle = link.recv()
        _, state, error, info = told
        return {"state": state, "error": error, "info": info}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        if self._state == "waiting":
            self._ask(True)


def _open(kind: type[ObjectiveTrainable]) -> Connection:
    host, address = kind.main
    environment = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
    if host == socket.gethostname() and os.path.exists(address):
        return connect(address, environment)
    global _template  # lives as long as this process
    _template = Template(kind.objective, threads(kind.objective, kind.jobs))
    return connect(_template.address, environment)


_template: Template | None = None
