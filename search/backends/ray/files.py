"""Files that trials on other machines of a cluster send to the run folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardwave.common.messages import say
from shardwave.search.workers.worker import describe
from shardwave.shards.storage import atomic

_log = logging.getLogger(__name__)


class FileQueue:
    """Queue of files in an actor on the machine of the driver; it is pickled to the actors of the trials."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def put(self, name: str, content: bytes) -> None:
        """Send a file; if the queue is lost, the file is too, and a warning is logged."""
        try:
            self._queue.put((name, content))
        except ray.exceptions.RayError as error:
            _log.warning("%s was not sent to the run folder: %s", name, describe(error))

    def write(self, folder: Path) -> None:
        """Write the files that arrived to a folder."""
        try:
            while True:
                name, content = cast(tuple[str, bytes], self._queue.get_nowait())
                folder.mkdir(exist_ok=True)
                atomic.write_bytes(folder / Path(name).name, content)
        except Empty:
            pass
        except ray.exceptions.RayError as error:
            say(f"checkpoints of trials on other machines are lost: {describe(error)[:200]}")
