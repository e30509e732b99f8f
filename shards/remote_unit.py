"""A unit of a set in an object store: built in a folder of this machine, then uploaded, its record last of all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocess.config import SpectrogramConfig
from preprocess.errors import DamagedFile
from shards import atomic
from shards.layout import BUILD
from shards.shard_writer import files_of
from shards.unit import Unit, UnitWriter, parse_record, record_path
from shards.url_path import UrlPath


class RemoteUnitWriter(UnitWriter):
    """A UnitWriter for the set at `target`, which works in the new folder `work`.

    The record names every object's size and version: by them it is seen whether what was uploaded is still there.
    """

    def __init__(self, target: UrlPath, work: Path, unit: Unit, config: SpectrogramConfig, feature_count: int):
        (work / BUILD).mkdir(parents=True)
        super().__init__(work, unit, config, feature_count)
        self._target = target

    def finish(self, builder: Mapping[str, Any]) -> dict[str, Any]:
        """Finish the unit here, upload it, and write and return its record."""
        try:
            record = super().finish(builder)
            names = [name for entry in record["shards"].values() for name, _ in files_of(entry)]
            stats = {name: (self._target / name).write(self._folder / name) for name in names}
            record["objects"] = {name: [stat.st_size, stat.version] for name, stat in stats.items()}
            record_path(self._target, self._unit).write(atomic.json_bytes(record))
        finally:
            self._remove()
        return record

    def abandon(self) -> None:
        """Remove what was written."""
        super().abandon()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def finished_record(folder: UrlPath, unit: Unit) -> dict[str, Any] | None:
    """Return the record of a unit that was finished before, if all its objects are there in the versions it names, else None."""
    try:
        record = parse_record(record_path(folder, unit).read_bytes(), unit)
        for entry in record["shards"].values():
            for name, _ in files_of(entry):
                stat = (folder / name).stat()
                if [stat.st_size, stat.version] != record["objects"][name]:
                    return None
    except (FileNotFoundError, KeyError):
        return None
    except DamagedFile:  # is built again
        return None
    return record
