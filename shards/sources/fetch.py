"""`fetch`: download a known data set, or recognise it in a folder, and write its label file."""

from __future__ import annotations

import collections
import shlex
from pathlib import Path
from typing import NotRequired, TypedDict

from shardwave.common.csv_text import csv_text
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip
from shardwave.shards.sources import known
from shardwave.shards.sources.download import check, digest, download
from shardwave.shards.sources.extract import extract
from shardwave.shards.sources.known.data_set import DataSet, Reading, Remote
from shardwave.shards.storage import atomic

OPTIONAL = ("fold", "group", "split")  # columns of labels.csv, written if a clip has a value
COUNTED = "the number of clips was checked instead"


class FetchResult(TypedDict):
    """Result of `fetch`."""

    name: str
    audio: str  # folder that the paths in labels.csv are relative to: `out`, or `source` if it is a folder
    labels: str  # path of labels.csv
    split: str
    clips: int
    classes: list[str]
    splits: NotRequired[dict[str, int]]  # clips of each split, if the data set has splits
    folds: NotRequired[dict[str, int]]  # clips of each fold, if the data set has folds
    groups: int | None  # number of groups
    notes: list[str]
    checksum: str  # result of the check
    licence: str
    citation: str


def fetch(
    name: str,
    out: Path | str,
    source: Path | str | None = None,
    split: str | None = None,
    url: str | None = None,
) -> FetchResult:
    """Fetch a known data set by name.

    Args:
        name: Name of the data set, one of `known.NAMES` or of an installed extension.
        out: Folder of the audio and of `labels.csv`.
        source: Folder or archive that already contains the data set; None downloads it.
        split: Name of one of the data set's splits; None selects the first.
        url: Address that replaces the known ones.

    Returns:
        Paths, counts and properties of the data set.

    Raises:
        UsageError: `name` is unknown, or see `fetch_data_set`.
        ShardwaveError: See `fetch_data_set`.
    """
    return fetch_data_set(known.get(name), Path(out), None if source is None else Path(source), split, url)


def fetch_data_set(
    data_set: DataSet, out: Path, source: Path | None = None, split: str | None = None, url: str | None = None
) -> FetchResult:
    """Download, check and unpack a data set, or read it from `source`, and write `out/labels.csv`.

    Args:
        data_set: The data set.
        out: Folder of the unpacked audio and of `labels.csv`.
        source: Folder or archive that already contains the data set; None downloads it. A folder is not
            changed.
        split: Name of one of the data set's splits; None selects the first.
        url: Address that replaces the known ones; a suffix `#sha256=...` replaces the published checksum.

    Returns:
        Paths, counts and properties of the data set.

    Raises:
        UsageError: An argument is invalid, or `source` does not exist.
        ShardwaveError: The download, the check or the extraction fails, or the folder does not contain the
            data set.
    """
    split = split or next(iter(data_set.splits))
    if split not in data_set.splits:
        raise UsageError(
            f"--split of {data_set.name} must be one of {', '.join(data_set.splits)}, got {split}"
        )
    if source is not None and url is not None:
        raise UsageError(
            "--from and --url cannot be used together: give the folder or archive of the data set, or its "
            "address"
        )
    if source is not None and not source.exists():
        raise UsageError(f"--from must be an existing file or folder, got {source}")
    say(
        data_set.title,
        f"  home      {data_set.homepage}",
        f"  licence   {data_set.licence}",
        f"  citation  {data_set.citation}",
    )
    folder, checksum = _obtain(data_set, out, source, url)
    root = data_set.root(folder)
    if root is None:
        raise ShardwaveError(f"{folder} does not contain {data_set.name}: expected {data_set.layout}")
    reading = _with_prefix(data_set.read(root, split), root.relative_to(folder))
    if not reading.clips:
        raise ShardwaveError(f"{folder} contains no clips of the split {split}: expected {data_set.layout}")
    if COUNTED in checksum:
        _check_count(data_set, root)
    labels = out / "labels.csv"
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(labels, label_csv(reading.clips).encode())
    for note in reading.notes:
        say(f"  note      {note}")
    say(f"  labels    {labels}: {len(reading.clips):,} clips")
    arguments = f"{shlex.quote(str(folder))} --labels {shlex.quote(str(labels))} --out sets/{data_set.name}"
    say(f"  next      shardwave shard {arguments} --preset {data_set.preset}")
    splits = collections.Counter(clip.split for clip in reading.clips if clip.split)
    folds = collections.Counter(str(clip.fold) for clip in reading.clips if clip.fold is not None)
    result: FetchResult = {
        "name": data_set.name,
        "audio": str(folder),
        "labels": str(labels),
        "split": split,
        "clips": len(reading.clips),
        "classes": sorted({clip.label for clip in reading.clips if clip.label is not None}),
        "groups": len({clip.group for clip in reading.clips if clip.group}) or None,
        "notes": reading.notes,
        "checksum": checksum,
        "licence": data_set.licence,
        "citation": data_set.citation,
    }
    if splits:
        result["splits"] = dict(sorted(splits.items()))
    if folds:
        result["folds"] = dict(sorted(folds.items()))
    return result


def label_csv(clips: list[Clip]) -> str:
    """Format clips as CSV text: path, label, and fold, group and split if at least one clip has them."""
    columns = [name for name in OPTIONAL if any(getattr(clip, name) is not None for clip in clips)]
    rows = [
        [
            clip.path,
            clip.label or "",
            *("" if getattr(clip, name) is None else getattr(clip, name) for name in columns),
        ]
        for clip in sorted(clips, key=lambda clip: clip.path)
    ]
    return csv_text([["path", "label", *columns], *rows])


def _obtain(data_set: DataSet, out: Path, source: Path | None, url: str | None) -> tuple[Path, str]:
    """Download and unpack the data set if necessary; returns its folder and the result of the check."""
    if source is not None and source.is_dir():
        return source, "not checked (a folder)"
    if source is not None:
        checksum = _archive_checksum(data_set, source)
        extract(source, out)
        return out, checksum
    if (out / "labels.csv").exists() and data_set.root(out) is not None:
        return out, "checked when it was downloaded"
    return out, _download(data_set, out, url)


def _download(data_set: DataSet, out: Path, url: str | None) -> str:
    """Download and unpack from the first address that works; returns the result of the check."""
    remotes = data_set.remotes
    if url is not None:
        address, _, stated = url.partition("#sha256=")
        remotes = (Remote(address, stated or data_set.sha256),)
    problems = []
    for remote in remotes:
        say(f"  download  {remote.url} (about {data_set.megabytes} MB)")
        archive = out / data_set.archive
        try:
            # A file of this name is complete: an earlier run stopped before it was unpacked.
            if not archive.exists():
                download(remote.url, archive, remote.sha256)
            elif remote.sha256 is not None:
                check(archive, remote.sha256, remote.url)
            checksum = (
                f"sha256 {remote.sha256} verified" if remote.sha256 else _archive_checksum(data_set, archive)
            )
            _unpack(archive, out, keep=checksum.endswith("verified"))
        except UsageError:
            raise
        except ShardwaveError as error:
            problems.append(str(error))
            if remote is not remotes[-1]:
                say(f"  failed    {error}")
            continue
        return checksum if checksum.endswith("verified") else f"{checksum}: {COUNTED}"
    raise ShardwaveError(problems[-1])


def _unpack(archive: Path, out: Path, keep: bool) -> None:
    """Unpack and remove the archive; with `keep`, it remains for the next run if unpacking fails."""
    try:
        extract(archive, out)
    except ShardwaveError:
        if not keep:
            archive.unlink()
        raise
    archive.unlink()


def _archive_checksum(data_set: DataSet, archive: Path) -> str:
    if data_set.sha256 is None:
        return "no published checksum"
    actual = digest(archive)
    if actual == data_set.sha256:
        return f"sha256 {actual} verified"
    return f"sha256 {actual} is not the published {data_set.sha256}"


def _check_count(data_set: DataSet, root: Path) -> None:
    """Check the number of clips instead of a checksum."""
    count = len(data_set.read(root, next(iter(data_set.splits))).clips)
    if count != data_set.clips:
        raise ShardwaveError(
            f"{root}: {count} clips, the published {data_set.name} has {data_set.clips}; "
            f"remove the folder and download it again, or use the folder as it is with --from {root}"
        )


def _with_prefix(reading: Reading, root: Path) -> Reading:
    """Return the reading with paths relative to the folder that contains the data set's `root`."""
    prefix = "" if root == Path(".") else f"{root.as_posix()}/"
    return Reading(
        [Clip(prefix + c.path, c.label, c.fold, c.group, c.split) for c in reading.clips], reading.notes
    )
