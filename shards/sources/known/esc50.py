"""ESC-50: 2,000 environmental recordings of 5 s, 50 classes, 5 official folds; ESC-10 is a subset."""

from __future__ import annotations

import csv
from pathlib import Path

from shardwave.common.errors import ShardwaveError
from shardwave.shards.clip import Clip
from shardwave.shards.sources.known.data_set import DataSet, Reading, Remote, missing_note
from shardwave.shards.sources.layouts.esc_names import FILE, FOLDER

TABLE = Path("meta") / "esc50.csv"


def find_table(folder: Path) -> bool:
    """Return whether a folder is the root of the second release: meta/esc50.csv and audio/."""
    return (folder / TABLE).is_file() and (folder / "audio").is_dir()


def read_table(root: Path, only_esc10: bool) -> Reading:
    """Read the clips of the second release; the group is the source recording."""
    with open(root / TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    needed = {"filename", "fold", "category", "esc10", "src_file"}
    if not rows or not needed <= set(rows[0]):
        raise ShardwaveError(
            f"{root / TABLE}: expected the columns {', '.join(sorted(needed))}; download the data set again"
        )
    if only_esc10:
        rows = [row for row in rows if row["esc10"].lower() == "true"]
    present = {file.name for file in (root / "audio").iterdir()}
    clips = [
        Clip(
            f"audio/{row['filename']}",
            row["category"].replace("_", " "),
            fold=int(row["fold"]),
            group=row["src_file"],
        )
        for row in rows
        if row["filename"] in present
    ]
    return Reading(
        clips,
        missing_note(len(rows), sorted(row["filename"] for row in rows if row["filename"] not in present)),
    )


def find_folders(folder: Path) -> bool:
    """Return whether a folder is the root of the first release: `001 - Dog bark/1-100032-A.ogg`, ..."""
    return any(
        FILE.fullmatch(file.name)
        for child in folder.iterdir()
        if child.is_dir() and FOLDER.fullmatch(child.name)
        for file in child.iterdir()
    )


def read_folders(root: Path) -> Reading:
    """Read the clips of the first release; class, fold and group are from the folder and file names."""
    clips = []
    for folder in sorted(root.iterdir()):
        named = FOLDER.fullmatch(folder.name)
        for file in sorted(folder.iterdir()) if named and folder.is_dir() else []:
            if named and (name := FILE.fullmatch(file.name)):
                clips.append(
                    Clip(
                        f"{folder.name}/{file.name}",
                        named["label"],
                        fold=int(name["fold"]),
                        group=name["clip"],
                    )
                )
    return Reading(clips)


def _read(root: Path, split: str) -> Reading:
    return read_table(root, only_esc10=False) if find_table(root) else read_folders(root)


def _find(folder: Path) -> bool:
    return find_table(folder) or (
        find_folders(folder) and sum(bool(FOLDER.fullmatch(child.name)) for child in folder.iterdir()) > 10
    )


DATA_SET = DataSet(
    name="esc50",
    title="ESC-50: dataset for environmental sound classification",
    homepage="https://github.com/karolpiczak/ESC-50",
    licence="CC BY-NC 3.0 (the ESC-10 part CC BY 3.0); the author of each clip is named in the LICENSE file",
    citation=(
        "K. J. Piczak: ESC: Dataset for environmental sound classification. ACM MM 2015. "
        "DOI 10.1145/2733373.2806390"
    ),
    remotes=(Remote("https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"),),
    archive="ESC-50-master.zip",
    megabytes=646,
    clips=2_000,
    layout="meta/esc50.csv beside audio/ (or the first release's class folders `101 - Dog`, …)",
    preset="sound",
    splits={"official": "the 5 official folds; `group` is the source recording"},
    find=_find,
    read=_read,
)  # fmt: skip
