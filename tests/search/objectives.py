"""Synthetic objectives for the conformance suite: module-level, so that workers of every backend can import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def smooth(params: dict[str, Any], report: Any) -> None:
    """Values that depend on the parameters and rise with the epochs."""
    for epoch in range(1, 7):
        report(epoch, params["quality"] * (1 - 0.5**epoch), {"step": 0.01 * epoch, "validation": 0.001 * epoch})


def broken(params: dict[str, Any], report: Any) -> None:
    raise ValueError("no such luck")
