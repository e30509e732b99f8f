"""`fetch`: a known data set downloaded or recognised in a folder, and its labels written in our CSV form."""

from __future__ import annotations

import collections
import shlex
from pathlib import Path
from typing import Any

from shardwave.common.csv_text import csv_text
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip
from shardwave.shards.sources import known
from shardwave.shards.sources.download import check, digest, download
from shardwave.shards.sources.extract import extract
from shardwave.shards.sources.known.data_set import DataSet, Reading, Remote
from shardwave.shards.storage import atomic

OPTIONAL = ("fold", "group", "split")  # columns of labels.csv that are written where a clip has them
COUNTED = "the number of clips was checked instead"


def fetch(
    name: str, out: Path | str, source: Path | str | None = None, split: str | None = None, url: str | None = None
) -> dict[str, Any]:
    """Bring a known data set into `out` and write `out/labels.csv`; see `fetch_data_set`."""
    return fetch_data_set(known.get(name), Path(out), None if source is None else Path(source), split, url)


def fetch_data_set(
    data_set: DataSet, out: Path, source: Path | None = None, split: str | None = None, url: str | None = None
) -> dict[str, Any]:
    """Download, check and unpack `data_set` into `out`, or take it from `source` (a folder, or the archive); write the labels.

    Paths in labels.csv are relative to the returned `audio` (`out`, or the folder given as `source`, which is left as it is).
    `split` is one of the data set's (default: its first). `url` replaces the addresses known; `#sha256=…` behind it replaces
    the published checksum. Returns audio, labels, clips, classes, splits or folds, groups, notes, checksum, licence
    and citation.
    """
    split = split or next(iter(data_set.splits))
    if split not in data_set.splits:
        raise UsageError(f"--split of {data_set.name} must be one of {', '.join(data_set.splits)}, got {split}")
    if source is not None and url is not None:
        raise UsageError(
            "--from and --url exclude each other: name a folder that has the data set, or a place to download it from"
        )
    if source is not None and not source.exists():
        raise UsageError(f"--from {source}: no such file or folder")
    say(
        data_set.title,
        f"  home      {data_set.homepage}",
        f"  licence   {data_set.licence}",
        f"  citation  {data_set.citation}",
    )
    folder, checksum = _obtain(data_set, out, source, url)
    root = data_set.root(folder)
    if root is None:
        raise ShardwaveError(f"{folder}: {data_set.name} is not here; expected {data_set.layout}")
    reading = _placed(data_set.read(root, split), root.relative_to(folder))
    if not reading.clips:
        raise ShardwaveError(f"{folder}: no clip of the split {split} was found; expected {data_set.layout}")
    if COUNTED in checksum:
        _check_count(data_set, root)
    labels = out / "labels.csv"
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(labels, table(reading.clips).encode())
    for note in reading.notes:
        say(f"  note      {note}")
    say(f"  labels    {labels}: {len(reading.clips):,} clips")
    where = f"{shlex.quote(str(folder))} --labels {shlex.quote(str(labels))} --out sets/{data_set.name}"
    say(f"  next      shardwave shard {where} --preset {data_set.preset}")
    counts = {
        "splits": collections.Counter(clip.split for clip in reading.clips if clip.split),
        "folds": collections.Counter(str(clip.fold) for clip in reading.clips if clip.fold is not None),
    }
    return {
        "name": data_set.name,
        "audio": str(folder),
        "labels": str(labels),
        "split": split,
        "clips": len(reading.clips),
        "classes": sorted({clip.label for clip in reading.clips if clip.label is not None}),
        **{key: dict(sorted(count.items())) for key, count in counts.items() if count},
        "groups": len({clip.group for clip in reading.clips if clip.group}) or None,
        "notes": reading.notes,
        "checksum": checksum,
        "licence": data_set.licence,
        "citation": data_set.citation,
    }


def table(clips: list[Clip]) -> str:
    """`clips` as CSV text: path, label, and of fold, group and split those that occur."""
    columns = [name for name in OPTIONAL if any(getattr(clip, name) is not None for clip in clips)]
    rows = [
        [clip.path, clip.label or "", *("" if getattr(clip, name) is None else getattr(clip, name) for name in columns)]
        for clip in sorted(clips, key=lambda clip: clip.path)
    ]
    return csv_text([["path", "label", *columns], *rows])


def _obtain(data_set: DataSet, out: Path, source: Path | None, url: str | None) -> tuple[Path, str]:
    """The folder that holds the data set, and what is known of its checksum; downloads and unpacks where need be."""
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
    """Download and unpack from the first place that has the archive; returns what is known of its checksum."""
    remotes = data_set.remotes
    if url is not None:
        address, _, stated = url.partition("#sha256=")
        remotes = (Remote(address, stated or data_set.sha256),)
    problems = []
    for remote in remotes:
        say(f"  download  {remote.url} (about {data_set.megabytes} MB)")
        archive = out / data_set.archive
        try:
            if not archive.exists():  # under its final name it is complete: an earlier run stopped before it was unpacked
                download(remote.url, archive, remote.sha256)
            elif remote.sha256 is not None:
                check(archive, remote.sha256, remote.url)
            checksum = f"sha256 {remote.sha256} verified" if remote.sha256 else _archive_checksum(data_set, archive)
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
    """Unpack and remove the archive; a right one (`keep`) that a full disk kept from being unpacked stays for the next run."""
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
    found = digest(archive)
    return f"sha256 {found} verified" if found == data_set.sha256 else f"sha256 {found} is not the published {data_set.sha256}"


def _check_count(data_set: DataSet, root: Path) -> None:
    """What stands in for a checksum where none is published."""
    found = len(data_set.read(root, next(iter(data_set.splits))).clips)
    if found != data_set.clips:
        raise ShardwaveError(
            f"{root}: {found} clips, the published {data_set.name} has {data_set.clips}; "
            f"remove the folder and download it again or, if this is what you want, use it with --from {root}"
        )


def _placed(reading: Reading, below: Path) -> Reading:
    """`reading` with its paths relative to the folder above the root."""
    prefix = "" if below == Path(".") else f"{below.as_posix()}/"
    return Reading([Clip(prefix + c.path, c.label, c.fold, c.group, c.split) for c in reading.clips], reading.notes)
