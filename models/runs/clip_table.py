"""Table of the clips of the shard set that a run was started on, stored as `clips.npz` in the run folder.

A resumed run compares its set with the table; an evaluation reads from it which clips the model was trained
on. Each row holds a digest of the model's input for the clip, the class and the split.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.runs.records import RunResult, Settings
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import JOIN, ShardSet, View
from shardwave.shards.storage.atomic import write_bytes

NAME = "clips.npz"


@dataclasses.dataclass(frozen=True)
class ClipTable:
    """Table with one row per clip of a set, sorted by split.

    Args:
        digest: BLAKE2b digest of one array field of the clip's `full` sample, uint64 [clips]; equal for exact
            copies.
        cls: Class index, -1 if unlabelled, int64 [clips].
        split: Index into `splits`, int64 [clips].
        splits: Names of the splits.
        is_strip: Whether the digests of images are those of strips.
    """

    digest: np.ndarray
    cls: np.ndarray
    split: np.ndarray
    splits: list[str]
    is_strip: bool = False

    def __len__(self) -> int:
        return len(self.digest)

    def counts(self) -> dict[str, int]:
        """Return the number of clips by split."""
        return dict(
            zip(self.splits, np.bincount(self.split, minlength=len(self.splits)).tolist(), strict=True)
        )

    def digests_of(self, splits: Sequence[str]) -> np.ndarray:
        """Return the digests of the clips in the given splits, uint64 [clips]."""
        return self.digest[np.isin(self.split, [i for i, name in enumerate(self.splits) if name in splits])]

    def write(self, folder: Path) -> None:
        """Write `clips.npz` into a run folder, atomically."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            digest=self.digest,
            cls=self.cls,
            split=self.split,
            splits=np.array(self.splits, np.str_),
            is_strip=np.array(self.is_strip),
        )
        write_bytes(folder / NAME, buffer.getvalue())


def clip_table(shard_set: ShardSet, field: str) -> ClipTable:
    """Compute the table of the clips of a set. Reads each `full` sample once.

    The last four tables are cached, since the folds of a cross-validation use the same set.

    Args:
        shard_set: Set whose clips are listed.
        field: Array field from which the digests are computed.
    """
    return _clip_table(shard_set.location, shard_set.set_id, field)


@functools.lru_cache(maxsize=4)
def _clip_table(location: str, set_id: str, field: str) -> ClipTable:
    shard_set = open_set(location)
    columns = []
    for number, name in enumerate(shard_set.splits):
        view, rows = _clips(shard_set, name)
        columns.append((_digests(view, rows, field), view.cls[rows], np.full(len(rows), number, np.int64)))
    digest, cls, split = (np.concatenate(column) for column in zip(*columns, strict=True))
    return ClipTable(digest, cls, split, list(shard_set.splits), shard_set.is_strip)


def digests(shard_set: ShardSet, split: str, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Compute the digests of the clips of a split, as a `ClipTable` holds them.

    Args:
        shard_set: Set of the clips.
        split: Name of the split.
        field: Array field from which the digests are computed.

    Returns:
        The clip numbers, int64 [clips], and the digests, uint64 [clips].
    """
    view, rows = _clips(shard_set, split)
    return view.clip[rows], _digests(view, rows, field)


def _clips(shard_set: ShardSet, split: str) -> tuple[View, np.ndarray]:
    """Return the `full` view of a split, or else `slice`, and one row per clip, in the order of the bytes."""
    view = shard_set.view(split, "slice" if shard_set.views_of(split) == ["slice"] else "full")
    view.check_files()  # fetches the files of a set at a URL together
    return view, np.sort(np.unique(view.clip, return_index=True)[1])


def _digests(view: View, rows: np.ndarray, field: str) -> np.ndarray:
    parts, values = field.split(JOIN), []
    for row in rows.tolist():
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            digest.update(view.data(row, part))
        values.append(digest.digest())
    return np.frombuffer(b"".join(values), "<u8").astype(np.uint64)


def read(folder: Path) -> ClipTable | None:
    """Read the table of a run folder.

    Returns:
        The table, or None if the folder has none.

    Raises:
        ShardwaveError: The file is damaged.
    """
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as columns:
            digest, cls, split, splits = (columns[name] for name in ("digest", "cls", "split", "splits"))
            is_strip = bool(columns["is_strip"]) if "is_strip" in columns else False
        numbers = (digest.dtype, cls.dtype, split.dtype) == (np.uint64, np.int64, np.int64)
        if (
            not numbers
            or splits.dtype.kind != "U"
            or not digest.shape == cls.shape == split.shape == (len(digest),)
        ):
            raise ValueError("not the columns of a clip table")
        if len(split) and not 0 <= split.min() <= split.max() < len(splits):
            raise ValueError("a split without a name")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ShardwaveError(f"{path} is damaged ({error}): restore it, or remove it") from None
    return ClipTable(digest, cls, split, splits.tolist(), is_strip)


def set_fields(shard_set: ShardSet, table: ClipTable | None = None) -> Settings:
    """Return the fields of result.json that identify a shard set.

    Args:
        shard_set: Set on which the run is started.
        table: Table of its clips; adds `clips`, the number of clips by split.

    Returns:
        Some of the fields of `RunResult`.
    """
    return {
        "set": shard_set.location,
        "set_id": shard_set.set_id,
        "fingerprint": shard_set.fingerprint,
        "set_config": shard_set.manifest["config"],
        "classes": list(shard_set.classes),
        **({"clips": table.counts()} if table is not None else {}),
    }


def check_same_set(earlier: RunResult, run: Path, shard_set: ShardSet, field: str) -> None:
    """Raise UsageError, which lists the differences, if a resumed run was started on another set.

    Args:
        earlier: Content of result.json of the run (see `set_fields`).
        run: Run folder.
        shard_set: Set of the current command.
        field: Array field from which the digests of the clip table are computed.
    """
    if earlier["set_id"] != shard_set.set_id:
        raise UsageError(
            f"--resume: the run was started on another set (set id {earlier['set_id']}, {shard_set.location} "
            f"has {shard_set.set_id}): {_differences(earlier, run, shard_set, field)}; "
            "use the earlier set, or another --out"
        )


def _differences(earlier: RunResult, run: Path, shard_set: ShardSet, field: str) -> str:
    """Describe the differences between the set of an earlier run and `shard_set`."""
    before, now = earlier["classes"], list(shard_set.classes)
    differences = [f"classes were {name_list(before)}, now {name_list(now)}"] if before != now else []
    settings = config_differences(earlier["set_config"], shard_set.manifest["config"])
    differences += [f"{name} was {old}, now {new}" for name, old, new in settings]
    old_table = read(run)
    table = clip_table(shard_set, field) if not settings else None  # with other settings all digests differ
    if old_table is not None and table is not None:
        differences += _clip_differences(old_table, before, table, now)
    elif table is not None and earlier["clips"] != table.counts():
        differences.append(f"clips by split were {_listed(earlier['clips'])}, now {_listed(table.counts())}")
    return (
        "; ".join(differences)
        or "same clips, labels and splits, but other paths, groups, order, slices or fields"
    )


def _clip_differences(
    old: ClipTable, old_classes: Sequence[str], new: ClipTable, new_classes: Sequence[str]
) -> list[str]:
    differences = []
    common = _common(old.digest.tolist(), new.digest.tolist())
    if common < len(old) or common < len(new):
        differences.append(
            f"{len(old) - common} of {len(old)} clips are missing or have other content, "
            f"{len(new) - common} are new"
        )
    for text, before, now in (
        ("have other labels", _names(old.cls, old_classes), _names(new.cls, new_classes)),
        ("are in another split", _names(old.split, old.splits), _names(new.split, new.splits)),
    ):
        same = _common(
            list(zip(old.digest.tolist(), before, strict=True)),
            list(zip(new.digest.tolist(), now, strict=True)),
        )
        if same < common:
            differences.append(f"{common - same} of {len(old)} clips {text}")
    return differences


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    return sum((Counter(one) & Counter(other)).values())


def _names(numbers: np.ndarray, names: Sequence[str]) -> list[str | None]:
    return [names[number] if number >= 0 else None for number in numbers.tolist()]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


# Settings that do not affect a field. The fields that are not listed are embeddings, which depend on the
# audio and the slices only.
_IMAGES = ("image_size", "frequency_scale", "floor_db")
UNUSED = {"npy": {"features", "embeddings"}, "features.npy": {*_IMAGES, "embeddings"}}
UNUSED_BY_EMBEDDINGS = {*_IMAGES, "features", "n_fft"}


def config_differences(
    one: Mapping[str, Any] | None, other: Mapping[str, Any] | None, field: str | None = None
) -> list[tuple[str, Any, Any]]:
    """Compare the configurations of two sets.

    Args:
        one: Configuration of the first set, or None.
        other: Configuration of the second set, or None.
        field: If given, only settings that affect this array field are compared.

    Returns:
        The differences as (name, value in `one`, value in `other`).
    """
    one, other = dict(one or {}), dict(other or {})
    unused: set[str] = set()
    if field is not None:
        parts = field.split(JOIN)
        embeddings = [part.removesuffix(".npy") for part in parts if part not in UNUSED]
        unused = set.intersection(*(UNUSED.get(part, UNUSED_BY_EMBEDDINGS) for part in parts))
        for config in (one, other):  # only the versions of the network's own embeddings matter
            entries = str(config.get("embeddings") or "").split(",")
            config["embeddings"] = ",".join(sorted(e for e in entries if e.split(" ")[0] in embeddings))
    names = sorted((one.keys() | other.keys()) - unused)
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def name_list(names: Sequence[str]) -> str:
    """Return the number of names and the first five of them, as text."""
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
