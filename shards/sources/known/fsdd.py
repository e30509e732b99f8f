"""FSDD, the Free Spoken Digit Dataset: 3,000 recordings at 8 kHz; 6 speakers say each digit 50 times."""

from __future__ import annotations

import re
from pathlib import Path

from shardwave.shards.clip import Clip
from shardwave.shards.sources.known.data_set import DataSet, Reading, Remote

_NAME = re.compile(r"(\d)_([A-Za-z]+)_(\d+)\.wav")
TEST = 5  # recordings 0 to 4 of each speaker and digit are the official test set


def _find(folder: Path) -> bool:
    return folder.name == "recordings" and any(_NAME.fullmatch(file.name) for file in folder.iterdir())


def _read(root: Path, split: str) -> Reading:
    clips = []
    for file in sorted(root.iterdir()):
        match = _NAME.fullmatch(file.name)
        if not match:
            continue
        digit, speaker, number = match[1], match[2], int(match[3])
        if split == "speaker":
            clips.append(Clip(file.name, digit, group=speaker))
        else:
            clips.append(Clip(file.name, digit, split="test" if number < TEST else "train"))
    notes = (
        []
        if split == "speaker"
        else ["all speakers are in both train and test (--split speaker allows splits by speaker)"]
    )
    return Reading(clips, notes)


DATA_SET = DataSet(
    name="fsdd",
    title="Free Spoken Digit Dataset",
    homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
    licence="CC BY-SA 4.0",
    citation=(
        "Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas, A. Thite: Jakobovski/free-spoken-digit-dataset. "
        "Zenodo, 2018. doi:10.5281/zenodo.1342401"
    ),
    remotes=(Remote("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"),),
    archive="free-spoken-digit-dataset.tar.gz",
    megabytes=16,
    clips=3_000,
    layout="recordings/ with 7_jackson_32.wav, …",
    preset="speech",
    splits={
        "official": "recordings 0 to 4 of each speaker and digit are the test set",
        "speaker": (
            "no split in the labels; `group` is the speaker, so that a split by group has unseen speakers in "
            "val and test"
        ),
    },
    find=_find,
    read=_read,
)  # fmt: skip
