"""The clips of the shard set that a run was started on: what tells another set from it, and known clips from new ones.

`clips.npz` in the run folder holds one row per clip: a digest of what the model sees of it, its class and its split.
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
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View
from shardwave.shards.storage.atomic import write_bytes

NAME = "clips.npz"


@dataclasses.dataclass(frozen=True)
class ClipTable:
    """One row per clip of a set, split by split."""

    digest: np.ndarray  # uint64 [clips], BLAKE2b of one array field of the clip's `full` sample: equal for exact copies
    cls: np.ndarray  # int64 [clips], -1 where unlabelled
    split: np.ndarray  # int64 [clips], position in `splits`
    splits: list[str]

    def __len__(self) -> int:
        return len(self.digest)

    def counts(self) -> dict[str, int]:
        """The number of clips of each split."""
        return dict(zip(self.splits, np.bincount(self.split, minlength=len(self.splits)).tolist(), strict=True))

    def of(self, splits: Sequence[str]) -> np.ndarray:
        """The digests of the clips in these splits."""
        return self.digest[np.isin(self.split, [i for i, name in enumerate(self.splits) if name in splits])]

    def write(self, folder: Path) -> None:
        """Write `clips.npz` into the run folder, atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, digest=self.digest, cls=self.cls, split=self.split, splits=np.array(self.splits, np.str_))
        write_bytes(folder / NAME, buffer.getvalue())


def clip_table(shard_set: ShardSet, field: str) -> ClipTable:
    """Read the table of a set's clips; `field` is the array field that the digests are taken of.

    Every `full` sample of the set is read once. The last few tables are kept, for the folds of a cross-validation.
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
    return ClipTable(digest, cls, split, list(shard_set.splits))


def digests(shard_set: ShardSet, split: str, field: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a split's clips (int64 [clips]) and their digests (uint64 [clips])."""
    view, rows = _clips(shard_set, split)
    return view.clip[rows], _digests(view, rows, field)


def _clips(shard_set: ShardSet, split: str) -> tuple[View, np.ndarray]:
    """The view that holds the split's whole clips, and one row of it for each clip, in the order of the shards' bytes."""
    views = shard_set.manifest["splits"][split]
    view = shard_set.view(split, "slice" if views.get("slice") and not views.get("full") else "full")
    view.check_files()  # those of a set at a URL are fetched together
    return view, np.sort(np.unique(view.clip, return_index=True)[1])


def _digests(view: View, rows: np.ndarray, field: str) -> np.ndarray:
    found = [hashlib.blake2b(view.data(row, field), digest_size=8).digest() for row in rows.tolist()]
    return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)


def read(folder: Path) -> ClipTable | None:
    """The table in a run folder; None where there is none. Raises ShardwaveError where it is damaged."""
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as columns:
            digest, cls, split, splits = (columns[name] for name in ("digest", "cls", "split", "splits"))
        numbers = (digest.dtype, cls.dtype, split.dtype) == (np.uint64, np.int64, np.int64)
        if not numbers or splits.dtype.kind != "U" or not digest.shape == cls.shape == split.shape == (len(digest),):
            raise ValueError("not the columns of a clip table")
        if len(split) and not 0 <= split.min() <= split.max() < len(splits):
            raise ValueError("a split that it does not name")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ShardwaveError(f"{path} is damaged ({error}): restore it, or remove it") from None
    return ClipTable(digest, cls, split, splits.tolist())


def about(shard_set: ShardSet, table: ClipTable | None = None) -> dict[str, Any]:
    """The fields of result.json that tell which set a run was started on; `clips`, their number by split, with a table alone."""
    return {
        "set": shard_set.location,
        "set_id": shard_set.set_id,
        "fingerprint": shard_set.fingerprint,
        "set_config": shard_set.manifest["config"],
        "classes": list(shard_set.classes),
        **({"clips": table.counts()} if table is not None else {}),
    }


def check_same_set(earlier: Mapping[str, Any], run: Path, shard_set: ShardSet, field: str) -> None:
    """Raise UsageError, saying what differs, where a resumed run was started on another set.

    Args:
        earlier: The fields of the run's result.json (see `about`).
        run: The run folder.
        shard_set: The set that the command names now.
        field: The array field that the run's clip table was made of.
    """
    if earlier["set_id"] != shard_set.set_id:
        raise UsageError(
            f"--resume: the run was started on another set (set id {earlier['set_id']}, {shard_set.location} has "
            f"{shard_set.set_id}): {_differences(earlier, run, shard_set, field)}; give the set of before, or another --out"
        )


def _differences(earlier: Mapping[str, Any], run: Path, shard_set: ShardSet, field: str) -> str:
    """What differs between the set that the run was started on and this one, as text."""
    before, now = earlier["classes"], list(shard_set.classes)
    found = [f"classes were {some(before)}, now {some(now)}"] if before != now else []
    settings = config_differences(earlier["set_config"], shard_set.manifest["config"])
    found += [f"{name} was {old}, now {new}" for name, old, new in settings]
    old_table = read(run)
    table = clip_table(shard_set, field) if not settings else None  # other settings: every clip has other content
    if old_table is not None and table is not None:
        found += _clip_differences(old_table, before, table, now)
    elif table is not None and earlier["clips"] != table.counts():
        found.append(f"clips by split were {_listed(earlier['clips'])}, now {_listed(table.counts())}")
    return "; ".join(found) or "the same clips, labels and splits, but other paths, groups, order, slices or fields"


def _clip_differences(old: ClipTable, old_classes: Sequence[str], new: ClipTable, new_classes: Sequence[str]) -> list[str]:
    found = []
    common = _common(old.digest.tolist(), new.digest.tolist())
    if common < len(old) or common < len(new):
        found.append(f"{len(old) - common} of {len(old)} clips are gone or have other content, {len(new) - common} are new")
    for what, before, now in (
        ("have other labels", _names(old.cls, old_classes), _names(new.cls, new_classes)),
        ("lie in another split", _names(old.split, old.splits), _names(new.split, new.splits)),
    ):
        same = _common(list(zip(old.digest.tolist(), before, strict=True)), list(zip(new.digest.tolist(), now, strict=True)))
        if same < common:
            found.append(f"{common - same} of {len(old)} clips {what}")
    return found


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    return sum((Counter(one) & Counter(other)).values())


def _names(numbers: np.ndarray, names: Sequence[str]) -> list[str | None]:
    return [names[number] if number >= 0 else None for number in numbers.tolist()]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


UNUSED = {"npy": ("features",), "features.npy": ("image_size", "frequency_scale", "floor_db")}  # settings that a field ignores


def config_differences(
    one: Mapping[str, Any] | None, other: Mapping[str, Any] | None, field: str | None = None
) -> list[tuple[str, Any, Any]]:
    """The settings in which two sets' configurations differ: (name, value of one, value of the other).

    With `field`, only those that this array field of the samples depends on.
    """
    one, other = one or {}, other or {}
    names = sorted((one.keys() | other.keys()) - set(UNUSED.get(field or "", ())))
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def some(names: Sequence[str]) -> str:
    """The number of names and the first few of them."""
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
