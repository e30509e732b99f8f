"""Where a build's files lie: the one place where folders of this machine and URLs differ.

Folders of this machine are read and written directly. Clips at a URL are fetched into a temporary folder, a few at a time; shards
of a set at a URL are written there and uploaded when they are finished, and their unit's record last of all.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwave.common.errors import DamagedFile, ShardwaveError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.plan import PlannedClip
from shardwave.shards.build.unit import Unit, UnitWriter, parse_record, record_path
from shardwave.shards.format.digest import file_digest
from shardwave.shards.format.layout import BUILD
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.storage import any_path, atomic, scratch
from shardwave.shards.storage.any_path import AnyPath

if TYPE_CHECKING:
    from upath import UPath

_log = logging.getLogger(__name__)
TOGETHER, SMALL = 16, 8 << 20  # clips fetched at a time, of up to so many bytes each


@contextlib.contextmanager
def open_unit(audio: AnyPath, folder: AnyPath, unit: Unit, config: SpectrogramConfig) -> Iterator[tuple[UnitWriter, UnitClips]]:
    """Open a unit of a build: the writer of its shards in `folder`, and the files of its clips below `audio`.

    What was written is removed where the context ends with an exception.
    """
    remote = not isinstance(audio, Path) or not isinstance(folder, Path)
    with scratch.folder() if remote else contextlib.nullcontext(Path()) as work:
        if isinstance(folder, Path):
            writer = UnitWriter(folder, unit, config)
        else:
            writer = _UploadingWriter(folder, work / unit.name, unit, config)
        try:
            yield writer, UnitClips(audio, [planned for _, planned in unit.clips], work)
        except BaseException:
            writer.abandon()
            raise


class UnitClips:
    """The files of a unit's clips in order, each fetched when it is iterated to and removed by `done`, if they are at a URL.

    A clip that is no longer there has a path without a file. Raises ShardwaveError where a store goes on failing, or gives
    another number of bytes than was planned.
    """

    def __init__(self, audio: AnyPath, clips: Sequence[PlannedClip], work: Path):
        self._clips = clips
        self._remote = audio if not isinstance(audio, Path) else None
        self._paths = [
            audio / planned.clip.path if isinstance(audio, Path) else work / f"clip-{i}" for i, planned in enumerate(clips)
        ]

    def __iter__(self) -> Iterator[Path]:
        if self._remote is None:
            yield from self._paths
            return
        with ThreadPoolExecutor(1, "fetch") as pool:  # some clips are fetched while those before them are in work
            fetching = pool.submit(self._fetch, self._remote, 0)
            for start in range(0, len(self._paths), TOGETHER):
                fetching.result()
                fetching = pool.submit(self._fetch, self._remote, start + TOGETHER)
                yield from self._paths[start : start + TOGETHER]

    def __getitem__(self, i: int) -> Path:
        return self._paths[i]

    def done(self, i: int) -> None:
        """Remove the copy of clip i."""
        if self._remote is not None:
            self._paths[i].unlink(missing_ok=True)

    def _fetch(self, audio: UPath, start: int) -> None:
        numbers = range(len(self._paths))[start : start + TOGETHER]
        small = [i for i in numbers if 0 <= self._clips[i].bytes <= SMALL]
        contents = dict(zip(small, any_path.read_many(audio, [self._clips[i].clip.path for i in small]), strict=True))
        for i in numbers:
            path, planned, data = self._paths[i], self._clips[i], contents.get(i)
            if data is not None and len(data) == planned.bytes:
                path.write_bytes(data)
            else:  # large, missing, or not read at the first attempt
                with contextlib.suppress(FileNotFoundError):
                    any_path.fetch(audio / planned.clip.path, path, planned.bytes)


class _UploadingWriter(UnitWriter):
    """A UnitWriter for the set at the URL `target`, which works in the new folder `work`.

    The record names every object's size and version: by them it is seen whether what was uploaded is still there.
    """

    def __init__(self, target: UPath, work: Path, unit: Unit, config: SpectrogramConfig):
        (work / BUILD).mkdir(parents=True)
        super().__init__(work, unit, config)
        self._target = target

    def finish(self, builder: Mapping[str, Any]) -> dict[str, Any]:
        record = super().finish(builder)
        files = [name for entry in record["shards"].values() for name, _ in files_of(entry)]
        with ThreadPoolExecutor(6, "upload") as pool:
            stored = pool.map(lambda name: any_path.write(self._target / name, self._folder / name), files)
            record["objects"] = {name: [info.size, info.version] for name, info in zip(files, stored, strict=True)}
        atomic.write_bytes(record_path(self._target, self._unit), atomic.json_bytes(record))
        return record


def finished_record(folder: AnyPath, unit: Unit) -> dict[str, Any] | None:
    """Return the record of a unit that was finished before, None unless all its files are there as it names them."""
    try:
        record = parse_record(any_path.read_bytes(record_path(folder, unit)), unit)
        for entry in record["shards"].values():
            for name, digest in files_of(entry):
                info = any_path.stat(folder / name)
                if isinstance(folder, Path):
                    unchanged = info is not None and info.size > 0 and file_digest(folder / name) == digest
                else:
                    unchanged = info is not None and [info.size, info.version] == record.get("objects", {}).get(name)
                if not unchanged:
                    return None
    except (OSError, DamagedFile):  # is built again
        return None
    _log.info("%s: finished before, kept", unit.name)
    return record


def check_written(folder: AnyPath, records: Sequence[Mapping[str, Any]]) -> None:
    """Raise ShardwaveError unless all that the units' records name is in `folder`: workers on other machines wrote it."""
    expected: dict[str, list[Any]] = {}
    for record in records:
        expected |= record.get("objects") or {entry["file"]: [entry["bytes"], ""] for entry in record["shards"].values()}
    for name, info in zip(expected, any_path.stats(folder, expected), strict=True):
        if info is None or [info.size, info.version] != expected[name]:
            raise ShardwaveError(
                f"{folder / name} is not what a worker wrote: is another build writing there, or is {folder} not one storage "
                "that all nodes share? Run the same command again to finish the set"
            )
