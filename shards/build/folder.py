"""State of the output folder of a build, and removal of its files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shardwave.common import typed
from shardwave.common.errors import DamagedFile, ShardwaveError, UsageError
from shardwave.shards.build import plan
from shardwave.shards.build.worker import disk_error
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import (
    BUILD,
    BUILD_FILE,
    DALI_INDEX,
    INDEX,
    INPUTS,
    LOCK,
    MANIFEST,
    QUARANTINE,
    RECORD,
    REMARKS,
    SHARD_FILE,
    STORED,
    TAR,
    TEMPORARY,
    shard_name,
)
from shardwave.shards.format.manifest import Manifest
from shardwave.shards.format.records import TaskRecord
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.any_path import AnyPath

PLAN = "plan.jsonl"  # plan of a build from audio
WRITTEN = "written.txt"  # stems of the shards of a set that is written without a plan


@dataclasses.dataclass(frozen=True)
class State:
    """State of an output folder. All fields are None if there is no set.

    Args:
        plan: Plan of a set from audio that is unfinished or finished.
        manifest: Manifest of a finished set.
        written: Stems of the shards of an unfinished set that is written without a plan.
    """

    plan: plan.Plan | None = None
    manifest: Manifest | None = None
    written: list[str] | None = None


def examine(out: AnyPath) -> State:
    """Return the state of an output folder.

    Args:
        out: Folder or URL; it need not exist.

    Raises:
        UsageError: It is a file, or holds something other than a shard set.
        ShardwaveError: The files of the set are damaged.
    """
    if any_path.exists(out) and not any_path.is_dir(out):
        raise UsageError(f"--out must be a folder, got the file {out}")
    if isinstance(out, Path) and (out / BUILD).is_symlink():
        raise UsageError(
            f"{out / BUILD} is a symbolic link, and builds remove files there: remove the link, or give "
            "another --out"
        )
    names = any_path.names(out)
    if MANIFEST in names:
        try:
            contents = manifest.read(out)
        except UsageError as error:
            raise UsageError(
                f"--out {out} holds something else ({error}): give a new or empty folder"
            ) from None
        return State(plan.read(out / INPUTS) if INPUTS in names else None, contents)
    building = any_path.names(out / BUILD)
    if PLAN in building:
        return State(plan.read(out / BUILD / PLAN))
    if WRITTEN in building:
        return State(written=any_path.read_bytes(out / BUILD / WRITTEN).decode("ascii", "replace").split())
    others = sorted(name for name in names if name not in (LOCK, BUILD) and not TEMPORARY.fullmatch(name))
    if others:
        raise UsageError(
            f"--out {out} holds something else ({others[0]}{', ...' if len(others) > 1 else ''}): give a new "
            "or empty folder"
        )
    return State()


def prepare(out: AnyPath, new: plan.Plan, audio: AnyPath, *, overwrite: bool) -> Manifest | None:
    """Prepare an output folder for a build. The caller must hold its lock.

    Args:
        out: Folder or URL of the set.
        new: Plan of the build.
        audio: Folder or URL of the audio files.
        overwrite: Remove a set in the folder first.

    Returns:
        The manifest if the set is finished, else None.

    Raises:
        UsageError: The folder holds a set of other inputs or options, and `overwrite` is not set.
        ShardwaveError: The set is damaged.
    """
    clean_temporaries(out)
    state = examine(out)
    if overwrite:
        remove(out, state)
        state = State()
    if state.written is not None:
        raise UsageError(
            f"--out {out} holds an unfinished set that was not built from audio: give another folder, or "
            "--overwrite"
        )
    if state.manifest is not None:
        remove_build(out)  # exists if the last build was killed after it wrote the manifest
        return finished(out, state, new, audio)
    if state.plan is not None:
        _refuse_changes(out, state, state.plan, new, audio)
    any_path.make_folder(out / BUILD)
    if state.plan is None:
        new.write(out / BUILD / PLAN)
    return None


def finished(out: AnyPath, state: State, new: plan.Plan, audio: AnyPath) -> Manifest | None:
    """Return the manifest of the set in an output folder if it is finished, else None.

    Args:
        out: Folder or URL of the set.
        state: State of the folder.
        new: Plan of the build.
        audio: Folder or URL of the audio files.

    Raises:
        UsageError: The finished set has other inputs or options than `new`.
        ShardwaveError: A shard of the finished set is missing or damaged.
    """
    if state.manifest is not None:
        if state.plan is None:
            raise UsageError(
                f"--out {out} holds a set that was not built from audio: give another folder, or --overwrite"
            )
        _refuse_changes(out, state, state.plan, new, audio)
        sizes = {entry["file"]: entry["bytes"] for entry in manifest.entries(state.manifest)}
        for (name, size), info in zip(sizes.items(), any_path.stats(out, sizes), strict=True):
            if info is None or info.size != size:
                raise ShardwaveError(
                    f"{out / name} is {'damaged' if info else 'missing'} in a finished set: build it anew "
                    "with --overwrite"
                )
    return state.manifest


def prepare_anew(out: Path, *, overwrite: bool) -> None:
    """Prepare an output folder for a set written without a plan. The caller must hold its lock.

    Such a set starts again after an interruption.

    Args:
        out: Folder of the set.
        overwrite: Replace a finished set, or one that is being built from audio.

    Raises:
        UsageError: The folder holds such a set, and `overwrite` is not set.
    """
    state = examine(out)
    if state.manifest is not None and not overwrite:
        raise UsageError(f"--out {out} holds a finished set: give another folder, or --overwrite")
    if state.plan is not None and not overwrite:
        raise UsageError(
            f"--out {out} holds a set that is being built from audio: give another folder, or --overwrite"
        )
    remove(out, state)
    (out / BUILD).mkdir(exist_ok=True)
    (out / BUILD / WRITTEN).touch()


def note_written(out: Path, stem: str) -> None:
    """Record a shard of a set without a plan before it is published, so that a later run can remove it."""
    with open(out / BUILD / WRITTEN, "a") as file:
        file.write(f"{stem}\n")
        file.flush()
        os.fsync(file.fileno())


def sync(out: AnyPath, contents: Manifest) -> None:
    """Write the files of all shards of a manifest to disk (fsync), before the manifest is written."""
    if isinstance(out, Path):
        with ThreadPoolExecutor(8, "sync") as pool:  # file systems combine concurrent syncs
            list(
                pool.map(
                    atomic.sync,
                    (out / name for entry in manifest.entries(contents) for name, _ in files_of(entry)),
                )
            )
        atomic.sync(out)


def remove(out: AnyPath, state: State) -> None:
    """Remove the files of a set from an output folder, the manifest first. Other files remain."""
    stems = (
        {entry["file"].removesuffix(TAR) for entry in manifest.entries(state.manifest)}
        if state.manifest is not None
        else set()
    )
    stems |= {stem for stem in state.written or () if SHARD_FILE.fullmatch(stem + TAR)}
    if state.plan is not None:
        stems |= {shard_name(split, view, index) for split, index in state.plan.shards() for view in STORED}
    if state.manifest is not None:  # if this is interrupted, WRITTEN is the only evidence of the set
        any_path.make_folder(out / BUILD)
        atomic.write_bytes(out / BUILD / WRITTEN, "".join(f"{stem}\n" for stem in sorted(stems)).encode())
    any_path.remove(out, [MANIFEST])
    atomic.sync(out)
    files = (stem + suffix for stem in sorted(stems) for suffix in (TAR, INDEX, DALI_INDEX))
    any_path.remove(out, [QUARANTINE, REMARKS, INPUTS, *files])
    remove_build(out)


def remove_build(out: AnyPath) -> None:
    """Remove the files that are only needed during a build."""
    any_path.remove(
        out / BUILD,
        [
            name
            for name in any_path.names(out / BUILD)
            if BUILD_FILE.fullmatch(name) or TEMPORARY.fullmatch(name)
        ],
    )
    if isinstance(out, Path):
        with contextlib.suppress(OSError):  # the folder contains other files
            (out / BUILD).rmdir()


def clean_temporaries(out: AnyPath) -> None:
    """Remove the temporary files of killed processes. The caller must hold the lock."""
    for folder in (out, out / BUILD):
        any_path.remove(folder, [name for name in any_path.names(folder) if TEMPORARY.fullmatch(name)])


@contextlib.contextmanager
def clear_errors(out: AnyPath) -> Iterator[None]:
    """Convert an OSError in the context, such as that of a full disk, to a ShardwaveError of one line."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, out) from error


def _refuse_changes(out: AnyPath, state: State, old: plan.Plan, new: plan.Plan, audio: AnyPath) -> None:
    crc32 = {planned.clip.path: planned.crc32 for planned in old.clips if planned.crc32 is not None}
    if state.manifest is None:
        for path in (out / BUILD / name for name in any_path.names(out / BUILD) if RECORD.fullmatch(name)):
            with contextlib.suppress(DamagedFile):  # the task of a damaged record is built again
                crc32.update(
                    typed.check(typed.parse(any_path.read_bytes(path), path), TaskRecord, path)["crc32"]
                )
    changes = plan.changes(old, new, audio, crc32)
    if changes:
        verb = "was built" if state.manifest is not None else "was begun"
        raise UsageError(
            f"{out} {verb} from other inputs or options: {'; '.join(changes)}. Give another --out, or "
            "--overwrite to build it anew"
        )
