"""The output folder of a build: whose it is, what state it is in, and what may be removed from it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shardwave.common import typed
from shardwave.common.errors import DamagedFile, ShardwaveError, UsageError
from shardwave.shards.build import plan
from shardwave.shards.build.task import disk_error
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
    TAR,
    TEMPORARY,
    VIEWS,
    shard_name,
)
from shardwave.shards.format.records import UnitRecord
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.any_path import AnyPath

PLAN = "plan.jsonl"  # of a build from audio
WRITTEN = "written.txt"  # the shards so far of a set that is written in one go


@dataclasses.dataclass(frozen=True)
class State:
    """What lies in an output folder: nothing yet, a set that is being built (`plan`) or written (`written`), or a whole one."""

    plan: plan.Plan | None = None
    manifest: dict[str, Any] | None = None
    written: list[str] | None = None


def examine(out: AnyPath) -> State:
    """The state of the folder (or the URL) `out`; raises UsageError where it holds something else than a shard set."""
    if any_path.exists(out) and not any_path.is_dir(out):
        raise UsageError(f"--out must be a folder, got the file {out}")
    if isinstance(out, Path) and (out / BUILD).is_symlink():
        raise UsageError(
            f"{out / BUILD} is a symbolic link, and builds remove files there: remove the link, or give another --out"
        )
    names = any_path.names(out)
    if MANIFEST in names:
        try:
            found = manifest.read(out)
        except UsageError as error:
            raise UsageError(f"--out {out} holds something else ({error}): give a new or empty folder") from None
        return State(plan.read(out / INPUTS) if INPUTS in names else None, found)
    building = any_path.names(out / BUILD)
    if PLAN in building:
        return State(plan.read(out / BUILD / PLAN))
    if WRITTEN in building:
        return State(written=any_path.read_bytes(out / BUILD / WRITTEN).decode("ascii", "replace").split())
    others = sorted(name for name in names if name not in (LOCK, BUILD) and not TEMPORARY.fullmatch(name))
    if others:
        raise UsageError(
            f"--out {out} holds something else ({others[0]}{', ...' if len(others) > 1 else ''}): give a new or empty folder"
        )
    return State()


def prepare(out: AnyPath, new: plan.Plan, audio: AnyPath, *, overwrite: bool) -> dict[str, Any] | None:
    """Make `out` ready for building `new` (call it under the lock): the manifest where that is finished already, else None.

    Raises UsageError where the folder holds a set of other inputs or options; with `overwrite`, that set's files are removed.
    """
    clean_temporaries(out)
    state = examine(out)
    if overwrite:
        remove(out, state)
        state = State()
    if state.written is not None:
        raise UsageError(
            f"--out {out} holds an unfinished set that was not built from audio: give another folder, or --overwrite"
        )
    if state.manifest is not None:
        remove_build(out)  # left where the last build was killed at its very end
        return finished(out, state, new, audio)
    if state.plan is not None:
        _refuse_changes(out, state, state.plan, new, audio)
    any_path.make_folder(out / BUILD)
    if state.plan is None:
        new.write(out / BUILD / PLAN)
    return None


def finished(out: AnyPath, state: State, new: plan.Plan, audio: AnyPath) -> dict[str, Any] | None:
    """The manifest of the set in `out` where that is finished; raises where it is damaged, or of other inputs or options."""
    if state.manifest is not None:
        if state.plan is None:
            raise UsageError(f"--out {out} holds a set that was not built from audio: give another folder, or --overwrite")
        _refuse_changes(out, state, state.plan, new, audio)
        sizes = {entry["file"]: entry["bytes"] for entry in manifest.entries(state.manifest)}
        for (name, size), info in zip(sizes.items(), any_path.stats(out, sizes), strict=True):
            if info is None or info.size != size:
                raise ShardwaveError(
                    f"{out / name} is {'damaged' if info else 'missing'} in a finished set: build it anew with --overwrite"
                )
    return state.manifest


def prepare_anew(out: Path, *, overwrite: bool) -> None:
    """Make `out` ready for a set written in one go (call it under the lock); one that was cut off starts over."""
    state = examine(out)
    if state.manifest is not None and not overwrite:
        raise UsageError(f"--out {out} holds a finished set: give another folder, or --overwrite")
    if state.plan is not None and not overwrite:
        raise UsageError(f"--out {out} holds a set that is being built from audio: give another folder, or --overwrite")
    remove(out, state)
    (out / BUILD).mkdir(exist_ok=True)
    (out / BUILD / WRITTEN).touch()


def note_written(out: Path, stem: str) -> None:
    """Note a shard of a set that is written in one go, before it gets its name: it can then be removed if that is cut off."""
    with open(out / BUILD / WRITTEN, "a") as file:
        file.write(f"{stem}\n")
        file.flush()
        os.fsync(file.fileno())


def sync(out: AnyPath, made: dict[str, Any]) -> None:
    """Make the shards that the manifest `made` names last, before it says that they are there."""
    if isinstance(out, Path):
        with ThreadPoolExecutor(8, "sync") as pool:  # file systems write out together what is synced at the same time
            list(pool.map(atomic.sync, (out / name for entry in manifest.entries(made) for name, _ in files_of(entry))))
        atomic.sync(out)


def remove(out: AnyPath, state: State) -> None:
    """Remove the files of the set in `out`, the manifest first, and nothing that is not the set's."""
    stems = (
        {entry["file"].removesuffix(TAR) for entry in manifest.entries(state.manifest)} if state.manifest is not None else set()
    )
    stems |= {stem for stem in state.written or () if SHARD_FILE.fullmatch(stem + TAR)}
    if state.plan is not None:
        stems |= {shard_name(split, view, index) for split, index in state.plan.units() for view in VIEWS}
    if state.manifest is not None:  # from here on the folder is known as ours by this note alone
        any_path.make_folder(out / BUILD)
        atomic.write_bytes(out / BUILD / WRITTEN, "".join(f"{stem}\n" for stem in sorted(stems)).encode())
    any_path.remove(out, [MANIFEST])
    atomic.sync(out)
    files = (stem + suffix for stem in sorted(stems) for suffix in (TAR, INDEX, DALI_INDEX))
    any_path.remove(out, [QUARANTINE, REMARKS, INPUTS, *files])
    remove_build(out)


def remove_build(out: AnyPath) -> None:
    """Remove what is only needed while building."""
    any_path.remove(
        out / BUILD, [name for name in any_path.names(out / BUILD) if BUILD_FILE.fullmatch(name) or TEMPORARY.fullmatch(name)]
    )
    if isinstance(out, Path):
        with contextlib.suppress(OSError):  # somebody put something into it
            (out / BUILD).rmdir()


def clean_temporaries(out: AnyPath) -> None:
    """Remove what killed processes left half-written (call it under the lock)."""
    for folder in (out, out / BUILD):
        any_path.remove(folder, [name for name in any_path.names(folder) if TEMPORARY.fullmatch(name)])


@contextlib.contextmanager
def clear_errors(out: AnyPath) -> Iterator[None]:
    """Turn a failed write below `out` (a full disk) into one clear line."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, out) from error


def _refuse_changes(out: AnyPath, state: State, old: plan.Plan, new: plan.Plan, audio: AnyPath) -> None:
    crc32 = {planned.clip.path: planned.crc32 for planned in old.clips if planned.crc32 is not None}
    if state.manifest is None:
        for path in (out / BUILD / name for name in any_path.names(out / BUILD) if RECORD.fullmatch(name)):
            with contextlib.suppress(DamagedFile):  # a record that is not readable counts as not done
                crc32.update(typed.check(typed.parse(any_path.read_bytes(path), path), UnitRecord, path)["crc32"])
    told = plan.changes(old, new, audio, crc32)
    if told:
        what = "was built" if state.manifest is not None else "was begun"
        raise UsageError(
            f"{out} {what} from other inputs or options: {'; '.join(told)}. Give another --out, or --overwrite to build it anew"
        )
