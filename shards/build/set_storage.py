"""Read the clips and write the shards of a shard task, on disk or at URLs.

Clips at a URL are fetched into a temporary folder, a few at a time. Shards of a set at a URL are written to a
temporary folder and uploaded when they are complete, the record of their task last.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from shardwave.common.errors import DamagedFile, ShardwaveError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.plan import PlannedClip
from shardwave.shards.build.shard_task import ShardTask, TaskWriter, parse_record, record_path
from shardwave.shards.format.digest import file_digest
from shardwave.shards.format.layout import BUILD
from shardwave.shards.format.layouts import VIEWS
from shardwave.shards.format.manifest import Identity
from shardwave.shards.format.records import TaskRecord
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.storage import any_path, atomic, scratch
from shardwave.shards.storage.any_path import AnyPath

if TYPE_CHECKING:
    from upath import UPath

_log = logging.getLogger(__name__)
TOGETHER, SMALL = 16, 8 << 20  # number of clips fetched by one request, and their maximum size in bytes


@contextlib.contextmanager
def open_task(
    audio: AnyPath, folder: AnyPath, task: ShardTask, config: SpectrogramConfig, layout: str = VIEWS
) -> Iterator[tuple[TaskWriter, TaskClips]]:
    """Open a task of a build. If the context ends with an exception, the written files are removed.

    Args:
        audio: Folder or URL of the audio files.
        folder: Folder or URL of the set.
        task: The task.
        config: Spectrogram configuration.
        layout: One of `layouts.LAYOUTS`.

    Yields:
        The writer of the task's shards, and the files of its clips.
    """
    remote = not isinstance(audio, Path) or not isinstance(folder, Path)
    with scratch.folder() if remote else contextlib.nullcontext(Path()) as work:
        if isinstance(folder, Path):
            writer = TaskWriter(folder, task, config, layout)
        else:
            writer = _UploadingWriter(folder, work / task.name, task, config, layout)
        try:
            yield writer, TaskClips(audio, [planned for _, planned in task.clips], work)
        except BaseException:
            writer.abandon()
            raise


class TaskClips:
    """Paths of the files of a task's clips, in order.

    Files at a URL are fetched during the iteration and removed by `done`. If a file does not exist any more,
    there is no file at its path. Iterating raises ShardwaveError if a store continues to fail, or returns
    another number of bytes than planned.

    Args:
        audio: Folder or URL of the audio files.
        clips: The clips of the task.
        work: Folder for files fetched from a URL.
    """

    def __init__(self, audio: AnyPath, clips: Sequence[PlannedClip], work: Path) -> None:
        self._clips = clips
        self._remote = audio if not isinstance(audio, Path) else None
        self._paths = [
            audio / planned.clip.path if isinstance(audio, Path) else work / f"clip-{i}"
            for i, planned in enumerate(clips)
        ]

    def __iter__(self) -> Iterator[Path]:
        if self._remote is None:
            yield from self._paths
            return
        with ThreadPoolExecutor(1, "fetch") as pool:  # fetches the next clips while the caller uses these
            fetching = pool.submit(self._fetch, self._remote, 0)
            for start in range(0, len(self._paths), TOGETHER):
                fetching.result()
                fetching = pool.submit(self._fetch, self._remote, start + TOGETHER)
                yield from self._paths[start : start + TOGETHER]

    def __getitem__(self, i: int) -> Path:
        return self._paths[i]

    def done(self, i: int) -> None:
        """Remove the fetched file of clip i; files on disk remain."""
        if self._remote is not None:
            self._paths[i].unlink(missing_ok=True)

    def _fetch(self, audio: UPath, start: int) -> None:
        numbers = range(len(self._paths))[start : start + TOGETHER]
        small = [i for i in numbers if 0 <= self._clips[i].bytes <= SMALL]
        contents = dict(
            zip(small, any_path.read_many(audio, [self._clips[i].clip.path for i in small]), strict=True)
        )
        for i in numbers:
            path, planned, data = self._paths[i], self._clips[i], contents.get(i)
            if data is not None and len(data) == planned.bytes:
                path.write_bytes(data)
            else:  # large, missing, or the first attempt failed
                with contextlib.suppress(FileNotFoundError):
                    any_path.fetch(audio / planned.clip.path, path, planned.bytes)


class _UploadingWriter(TaskWriter):
    """TaskWriter for a set at the URL `target` that writes to the new folder `work` and uploads the files.

    The record contains size and version of each object, by which a later build recognizes the uploaded files.
    """

    def __init__(
        self, target: UPath, work: Path, task: ShardTask, config: SpectrogramConfig, layout: str
    ) -> None:
        (work / BUILD).mkdir(parents=True)
        super().__init__(work, task, config, layout)
        self._target = target

    def finish(self, builder: Identity) -> TaskRecord:
        """Publish and upload the shards, then write the record to the URL and return it."""
        record = super().finish(builder)
        files = [name for entry in record["shards"].values() for name, _ in files_of(entry)]
        with ThreadPoolExecutor(6, "upload") as pool:
            stored = pool.map(lambda name: any_path.write(self._target / name, self._folder / name), files)
            record["objects"] = {
                name: [info.size, info.version] for name, info in zip(files, stored, strict=True)
            }
        atomic.write_bytes(record_path(self._target, self._task), atomic.json_bytes(record))
        return record


def finished_record(folder: AnyPath, task: ShardTask) -> TaskRecord | None:
    """Return the record of a task that was finished before; None if a file of it is missing or changed."""
    try:
        record = parse_record(any_path.read_bytes(record_path(folder, task)), task)
        for entry in record["shards"].values():
            for name, digest in files_of(entry):
                info = any_path.stat(folder / name)
                if isinstance(folder, Path):
                    unchanged = info is not None and info.size > 0 and file_digest(folder / name) == digest
                else:
                    unchanged = info is not None and [info.size, info.version] == record.get(
                        "objects", {}
                    ).get(name)
                if not unchanged:
                    return None
    except (OSError, DamagedFile):
        return None
    _log.info("%s: finished before, kept", task.name)
    return record


def check_written(folder: AnyPath, records: Sequence[TaskRecord]) -> None:
    """Check that the shards written by workers on other machines are in the folder of the set.

    Args:
        folder: Folder or URL of the set.
        records: Records of all tasks.

    Raises:
        ShardwaveError: A shard is missing or differs from its record.
    """
    expected: dict[str, list[int | str]] = {}
    for record in records:
        expected |= record.get("objects") or {
            entry["file"]: [entry["bytes"], ""] for entry in record["shards"].values()
        }
    for name, info in zip(expected, any_path.stats(folder, expected), strict=True):
        if info is None or [info.size, info.version] != expected[name]:
            raise ShardwaveError(
                f"{folder / name} is not the file that a worker wrote: "
                "check that no other build writes there and "
                f"that all nodes share {folder}, and run the same command again to finish the set"
            )
