"""How threads of OpenMP wait for work; imports nothing, so that it can run before torch does."""

from __future__ import annotations

import os

SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # for GNU's and LLVM's (Intel's) runtime


def let_idle_threads_sleep() -> None:
    """Make idle OpenMP threads sleep instead of spin, here and in every process that this one starts.

    By default a thread that has finished its part of a loop spins until the others have. Beside other programs one of the others
    may have no core, and the spinning thread then takes the time that it waits for. The runtimes read these variables once, when
    torch loads them: the packages call this before they import torch. A variable that is set already keeps its value.
    """
    for name, value in SLEEPING.items():
        os.environ.setdefault(name, value)
