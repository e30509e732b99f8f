"""Synthetic objectives for the search tests: module-level, so that workers of every backend can import
them."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

EPOCHS = 6


def smooth(params: dict[str, Any], report: Any) -> None:
    """Values that depend on the parameters alone and rise with the epochs."""
    report.info["size"] = 7
    for epoch in range(1, EPOCHS + 1):
        report(epoch, curve(params, epoch), {"step": 0.01 * epoch, "validation": 0.001 * epoch})


def smooth_in(folder: Path) -> Any:
    """`smooth`, as run_search.py makes objectives."""
    return smooth


def curve(params: dict[str, Any], epoch: int) -> float:
    return params["quality"] * (1 - 0.5**epoch)


def several(params: dict[str, Any], report: Any) -> None:
    """Fails, runs out of memory, reports nothing, or not a number, as `kind` says."""
    kind = params["kind"]
    if kind == "error":
        raise ValueError("no such\nluck")
    if kind == "memory":
        raise MemoryError("cannot allocate 12 GB")
    if kind == "nan":
        report(1, float("nan"))
    if kind == "good":
        smooth({"quality": 0.5}, report)


def broken(params: dict[str, Any], report: Any) -> None:
    raise ValueError("no such luck")


class Unpreparable:
    """An objective whose data are missing."""

    def prepare(self) -> None:
        raise FileNotFoundError("no shard set here")

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        raise AssertionError("never called")


class Counting:
    """Counts in files how often it was prepared, and how often it ran, in which process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        note(self.folder / "prepared", os.getpid())

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        note(self.folder / "ran", os.getpid())
        time.sleep(0.05)
        smooth(params, report)


class Dying:
    """Kills its own process in the second epoch, in the first `times` attempts at the trials of quality
    0.25."""

    def __init__(self, folder: Path, times: int = 1) -> None:
        self.folder, self.times = folder, times

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        report(1, curve(params, 1))
        if params["quality"] == 0.25 and len(lines(self.folder / "deaths")) < self.times:
            note(self.folder / "deaths", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        for epoch in range(2, EPOCHS + 1):
            report(epoch, curve(params, epoch))


class Crowded:
    """Runs out of the memory of a GPU: "large" beside other workers, "huge" always. "left" and "right"
    wait for each other."""

    modules = ("torch",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        note(self.folder / "prepared", os.getpid())

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        import torch

        kind = params["kind"]
        note(self.folder / kind, os.environ["CUDA_VISIBLE_DEVICES"])
        others = {int(pid) for pid in lines(self.folder / "prepared")} - {os.getpid()}
        first = len(lines(self.folder / kind)) == 1  # the other worker may still be starting
        crowded = first or any(exists(pid) for pid in others)
        if kind == "huge" or (kind == "large" and crowded):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        until = time.monotonic() + 20
        while kind in ("left", "right") and not all(lines(self.folder / name) for name in ("left", "right")):
            assert time.monotonic() < until, "the other trial did not run at the same time"
            time.sleep(0.02)
        report(1, 0.5)


class Slow:
    """Fast trials; from number 4 on they tell their process and wait in their third epoch until
    `folder/go` appears."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        note(self.folder / "ran", report.trial)
        for epoch in range(1, EPOCHS + 1):
            if epoch == 3 and report.trial >= 4:
                note(self.folder / "waiting", os.getpid())
                while not (self.folder / "go").exists():
                    time.sleep(0.02)
            report(epoch, curve(params, epoch))


class Placed:
    """Tells its host and its number, and waits in its third epoch until `folder/go` appears."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        note(self.folder / "placed", f"{socket.gethostname()} {report.trial}")
        for epoch in range(1, EPOCHS + 1):
            while epoch == 3 and not (self.folder / "go").exists():
                time.sleep(0.02)
            report(epoch, curve(params, epoch))


class Meeting:
    """Trials that end when the two searches, whose run folders lie side by side, have both started one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, params: dict[str, Any], report: Any) -> None:
        note(self.folder / "ran", report.trial)
        until = time.monotonic() + 300
        while len(list(self.folder.parent.glob("*/ran"))) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        smooth(params, report)


def note(path: Path, what: object) -> None:
    with open(path, "a") as file:
        file.write(f"{what}\n")


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
