"""Speech Commands v0.02: 105,829 utterances of one second, 35 words, 2,618 speakers, official splits."""

from __future__ import annotations

from pathlib import Path

from shardwave.shards.clip import Clip
from shardwave.shards.sources.known.data_set import DataSet, Reading, Remote, missing_note

LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}  # all other files are in train


def _find(folder: Path) -> bool:
    return all((folder / name).is_file() for name in LISTS.values())


def _read(root: Path, split: str) -> Reading:
    assigned = {
        line.strip(): part
        for part, name in LISTS.items()
        for line in (root / name).read_text().splitlines()
        if line.strip()
    }
    clips = []
    for word in sorted(
        folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_"))
    ):
        for file in sorted(word.glob("*.wav")):
            path = f"{word.name}/{file.name}"
            speaker = file.name.split("_nohash_")[0]
            clips.append(Clip(path, word.name, group=speaker, split=assigned.get(path, "train")))
    missing = sorted(set(assigned) - {clip.path for clip in clips})
    return Reading(clips, missing_note(len(assigned), missing))


DATA_SET = DataSet(
    name="speech-commands",
    title="Speech Commands v0.02",
    homepage="https://arxiv.org/abs/1804.03209",
    licence="CC BY 4.0",
    citation=(
        "P. Warden: Speech Commands: A dataset for limited-vocabulary speech recognition. "
        "arXiv:1804.03209, 2018"
    ),
    remotes=(
        Remote(
            "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
    ),
    archive="speech_commands_v0.02.tar.gz",
    megabytes=2_429,
    clips=105_829,
    layout="validation_list.txt, testing_list.txt and one folder per word",
    preset="speech",
    splits={"official": "the official validation and test lists; `group` is the speaker"},
    find=_find,
    read=_read,
)  # fmt: skip
