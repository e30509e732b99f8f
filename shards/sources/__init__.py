"""Sources: what lies in a folder or a table becomes clips; one file each."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from preprocess.errors import UsageError
from shards.clip import Clip

if TYPE_CHECKING:
    from shards.url_path import Place

_log = logging.getLogger(__name__)


def check_regular(path: Place, option: str) -> None:
    """Raise UsageError where `path`, named by `option`, is a pipe, a socket or a device: reading it might never end."""
    if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{option} must be a regular file, got {path}: it is a pipe, a socket or a device")


def discover(audio: Place, labels: Place | None = None) -> list[Clip]:
    """Clips of the folder `audio`, sorted by path: those `labels` names, or else by its layout (layouts/), or else every audio
    file, its class the parent folder.

    Raises UsageError where the folder or the label file is not usable.
    """
    from shards.sources import csv_labels, layouts

    start = time.perf_counter()
    if labels is not None:
        check_regular(labels, "--labels")
    if labels is not None:
        clips, how = csv_labels.read(audio, labels), f"named by {labels}"
    else:
        clips, how = layouts.read(audio)
    _log.info("%s: %d clips, %s, in %.2f s", audio, len(clips), how, time.perf_counter() - start)
    return clips
