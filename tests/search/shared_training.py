"""Trainings that note where their resident copies lie in memory; in a module that workers can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from objectives import lines, note

from shardwave.models.training.config import defaults
from shardwave.search.objective import TrainingObjective


class SharedTraining(TrainingObjective):
    """Notes in files of `folder` the processes that make a copy, and those that map it, with the inode of the
    mapped memory. Each of the first two trials ends after both workers have mapped the copies.
    """

    def __init__(self, path: Path, notes: Path, kill_owner: bool = False, device: str = "cpu") -> None:
        super().__init__(path, defaults("mlp", val_fold=1, epochs=3, device=device))
        self.notes, self.kill_owner = notes, kill_owner

    def load_copy(self, key: Any) -> Any:
        note(self.notes / "made", f"{os.getpid()} {hash_of(key)}")
        return super().load_copy(key)

    def prepare(self) -> None:
        if (inner := self.shared) is not None:

            def noted(key: Any) -> Any:
                tensors = inner(key)
                assert tensors is not None
                on_gpu = tensors[key.field].is_cuda
                place = "gpu" if on_gpu else inode(tensors[key.field].data_ptr())
                note(self.notes / "mapped", f"{os.getpid()} {hash_of(key)} {place}")
                return tensors

            self.shared = noted
        super().prepare()

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        if self.shared is not None:
            self._meet()
        if report.trial == 2 and self.kill_owner and not (self.notes / "killed").exists():
            note(self.notes / "killed", report.trial)
            os.kill(int(lines(self.notes / "made")[0].split()[0]), signal.SIGKILL)
            time.sleep(30)  # the main process ends this worker
        super().__call__(params, report)

    def _meet(self) -> None:
        note(self.notes / "here", os.getpid())
        until = time.monotonic() + 30
        while len(set(lines(self.notes / "here"))) < 2:
            assert time.monotonic() < until, "the other worker did not come"
            time.sleep(0.02)


def hash_of(key: Any) -> str:
    return "+".join(key.files)


def inode(address: int) -> str:
    """Return device and inode of the file that is mapped at an address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, device, number, *_ = line.split()
        start, end = (int(each, 16) for each in span.split("-"))
        if start <= address < end:
            return f"{device}:{number}"
    raise AssertionError("not mapped")
