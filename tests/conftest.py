"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from shardwave.common import log
from shardwave.common.errors import ShardwaveError
from shardwave.preprocess.weights.fetch import fetch

# A shell that starts the tests in the background makes them ignore interrupts, and every process that they
# start inherits this.
signal.signal(signal.SIGINT, signal.default_int_handler)

# All of Ray in the tests: a process keeps its first token, and cannot use a cluster with another one
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}


@pytest.fixture(autouse=True)
def shown_messages() -> None:
    """Show messages on standard error, as the commands do."""
    log.set_up()


@pytest.fixture
def pretrained() -> Callable[[str], None]:
    """Get pretrained weights by name into the user's cache; without pip's registry, the test is skipped."""

    def get(name: str) -> None:
        try:
            fetch(name)
        except ShardwaveError as error:
            pytest.skip(f"needs the weights {name}: {error}")

    return get
