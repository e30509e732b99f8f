"""The output folder of a build: whose it is, what state it is in, and what may be removed from it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from preprocess import typed
from preprocess.errors import DamagedFile, ShardwaveError, UsageError
from shards import atomic, manifest, plan
from shards.layout import (
    BUILD,
    DALI_INDEX,
    INDEX,
    INPUTS,
    LOCK,
    MANIFEST,
    QUARANTINE,
    REMARKS,
    SHARD_FILE,
    TAR,
    TEMPORARY,
    VIEWS,
    shard_name,
)
from shards.records import UnitRecord
from shards.shard_writer import files_of
from shards.task import disk_error
from shards.url_path import Place, UrlPath

PLAN = "plan.jsonl"  # of a build from audio
WRITTEN = "written.txt"  # the shards so far of a set that is written in one go


@dataclasses.dataclass(frozen=True)
class State:
    """What lies in an output folder: nothing yet, a set that is being built (`plan`) or written (`written`), or a whole one."""

    plan: plan.Plan | None = None
    manifest: dict[str, Any] | None = None
    written: list[str] | None = None


def examine(out: Place) -> State:
    """The state of the folder (or the URL) `out`; raises UsageError where it holds something else than a shard set."""
    if not out.exists():
        return State()
    if not out.is_dir():
        raise UsageError(f"--out must be a folder, got the file {out}")
    if (out / MANIFEST).exists():
        try:
            found = manifest.read(out)
        except UsageError as error:
            raise UsageError(f"--out {out} holds something else ({error}): give a new or empty folder") from None
        return State(plan.read(out / INPUTS) if (out / INPUTS).exists() else None, found)
    if (out / BUILD / PLAN).exists():
        return State(plan.read(out / BUILD / PLAN))
    if (out / BUILD / WRITTEN).exists():
        return State(written=(out / BUILD / WRITTEN).read_bytes().decode("ascii", "replace").split())
    names = os.listdir(out) if isinstance(out, Path) else {name.split("/")[0] for name in out.files()}
    others = sorted(name for name in names if name not in (LOCK, BUILD) and not TEMPORARY.fullmatch(name))
    if others:
        raise UsageError(
            f"--out {out} holds something else ({others[0]}{', ...' if len(others) > 1 else ''}): give a new or empty folder"
        )
    return State()


def prepare(out: Place, new: plan.Plan, audio: Place, *, overwrite: bool) -> dict[str, Any] | None:
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
    (out / BUILD).mkdir(exist_ok=True)
    if state.plan is None:
        new.write(out / BUILD / PLAN)
    return None


def finished(out: Place, state: State, new: plan.Plan, audio: Place) -> dict[str, Any] | None:
    """The manifest of the set in `out` where that is finished; raises where it is damaged, or of other inputs or options."""
    if state.manifest is not None:
        if state.plan is None:
            raise UsageError(f"--out {out} holds a set that was not built from audio: give another folder, or --overwrite")
        _refuse_changes(out, state, state.plan, new, audio)
        seen = out if isinstance(out, Path) else out.listed()
        for entry in entries(state.manifest):
            path = seen / entry["file"]
            if not path.exists() or path.stat().st_size != entry["bytes"]:
                raise ShardwaveError(
                    f"{path} is {'damaged' if path.exists() else 'missing'} in a finished set: build it anew with --overwrite"
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


def entries(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every shard's entry in a manifest."""
    for views in found["partitions"].values():
        for shards in views.values():
            yield from shards


def sync(out: Place, made: dict[str, Any]) -> None:
    """Make the shards that the manifest `made` names last, before it says that they are there."""
    if isinstance(out, Path):
        with ThreadPoolExecutor(8, "sync") as pool:  # file systems write out together what is synced at the same time
            list(pool.map(atomic.sync, (out / name for entry in entries(made) for name, _ in files_of(entry))))
        atomic.sync(out)


def remove(out: Place, state: State) -> None:
    """Remove the files of the set in `out`, the manifest first, and nothing that is not the set's."""
    stems = {entry["file"].removesuffix(TAR) for entry in entries(state.manifest)} if state.manifest is not None else set()
    stems |= {stem for stem in state.written or () if SHARD_FILE.fullmatch(stem + TAR)}
    if state.plan is not None:
        stems |= {shard_name(partition, view, index) for partition, index in state.plan.units() for view in VIEWS}
    if state.manifest is not None:  # from here on the folder is known as ours by this note alone
        (out / BUILD).mkdir(exist_ok=True)
        atomic.write_bytes(out / BUILD / WRITTEN, "".join(f"{stem}\n" for stem in sorted(stems)).encode())
    (out / MANIFEST).unlink(missing_ok=True)
    atomic.sync(out)
    _unlink(out, [QUARANTINE, REMARKS, INPUTS, *(stem + suffix for stem in sorted(stems) for suffix in (TAR, INDEX, DALI_INDEX))])
    remove_build(out)


def remove_build(out: Place) -> None:
    """Remove what is only needed while building."""
    if (out / BUILD).is_dir():
        names = [path.name for path in (out / BUILD).iterdir()]
        _unlink(out / BUILD, [name for name in names if name in (PLAN, WRITTEN) or name.endswith((".json", ".tmp"))])
        with contextlib.suppress(OSError):  # somebody put something into it
            (out / BUILD).rmdir()


def _unlink(folder: Place, names: Sequence[str]) -> None:
    """Remove these files, where they are there; in a store many at a time."""
    with ThreadPoolExecutor(1 if isinstance(folder, Path) else 16, "remove") as pool:
        for _ in pool.map(lambda name: (folder / name).unlink(missing_ok=True), names):
            pass


def clean_temporaries(out: Place) -> None:
    """Remove what killed processes left half-written (call it under the lock); in a store there is no such thing."""
    if isinstance(out, UrlPath):
        return
    for folder in (out, out / BUILD):
        for name in os.listdir(folder) if folder.is_dir() else ():
            if TEMPORARY.fullmatch(name) or (folder.name == BUILD and name.endswith(".tmp")):
                (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def clear_errors(out: Place) -> Iterator[None]:
    """Turn a failed write below `out` (a full disk) into one clear line."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, out) from error


def check_whole(out: Place, records: Sequence[dict[str, Any]]) -> None:
    """Raise ShardwaveError unless all that the units' records name is in `out`: workers on other machines wrote it."""
    seen = out if isinstance(out, Path) else out.listed()
    for record in records:
        for entry in record["shards"].values():
            path = seen / entry["file"]
            try:
                stat = path.stat()
                same = stat.st_size == entry["bytes"]
                if isinstance(seen, UrlPath):
                    same = all(list((seen / name).stat())[::2] == record["objects"][name] for name, _ in files_of(entry))
            except FileNotFoundError:
                same = False
            if not same:
                raise ShardwaveError(
                    f"{path} is not what a worker wrote: is another build writing there, or is {out} not one storage that all "
                    "nodes share? Run the same command again to finish the set"
                )


def _refuse_changes(out: Place, state: State, old: plan.Plan, new: plan.Plan, audio: Place) -> None:
    crc32 = {planned.clip.path: planned.crc32 for planned in old.clips if planned.crc32 is not None}
    if state.manifest is None:
        for path in (out / BUILD).glob("*.json"):
            with contextlib.suppress(DamagedFile):  # a record that is not readable counts as not done
                crc32.update(typed.check(typed.parse(path.read_bytes(), path), UnitRecord, path)["crc32"])
    told = plan.changes(old, new, audio, crc32)
    if told:
        what = "was built" if state.manifest is not None else "was begun"
        raise UsageError(
            f"{out} {what} from other inputs or options: {'; '.join(told)}. Give another --out, or --overwrite to build it anew"
        )
