"""GTZAN: 1,000 excerpts of 30 s in 10 genres, one of them unreadable; random or fault-filtered split."""

from __future__ import annotations

import re
from pathlib import Path

from shardwave.shards.clip import Clip
from shardwave.shards.sources.known.data_set import DataSet, Reading, Remote, missing_note

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
BROKEN = "jazz.00054"  # cannot be decoded in the published archives
SHA256 = "24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6"  # of the original genres.tar.gz
_NAME = re.compile(r"(?P<genre>[a-z]+)\.(?P<number>\d{5})\.(wav|au|mp3|flac|ogg)")

# Fault-filtered split of Kereliuk, Sturm and Larsen (2015), without repetitions, distortions and artists in
# several splits: 443 + 197 + 290 of 1,000 tracks. Track numbers of each genre as ranges, both ends included.
FILTERED = {
    "train": {
        "blues": "29-49 73-97",
        "classical": "30-33 43-48 50-67 80-99",
        "country": "19-26 28-29 65-99",
        "disco": "5 15-20 22-37 39-45 47 49 53-54 56-57 59 61 70 73-74 89",
        "hiphop": "2-25 28-29 31-38 41-42 55-61 77-80",
        "jazz": "0-1 11-24 41 47-72",
        "metal": "2-3 5 21 24 35 46-57 59-66 69 71-72 79-80 84 86 89-99",
        "pop": "2-9 11-12 16-20 23-29 31-36 38-42 44 46 49-50 80 97-99",
        "reggae": "0-2 4 6 9 11-12 14-32 42-45 49-51 54-60 63 69",
        "rock": "0-9 16-26 57-70 91-99",
    },
    "val": {
        "blues": "0-11 50-60",
        "classical": "0-10 68-76",
        "country": "0-7 9-18 27 41-42 45 49",
        "disco": "0 2-4 6-14 46 48 52 67-68 72 75 90 95",
        "hiphop": "81-98",
        "jazz": "2-10 25-32",
        "metal": "0-1 6-11 16-20 36-37 68 76-77 81-82",
        "pop": "10 53 55 58-62 81 83-86",
        "reggae": "61-62 70 72 74 76-78 85 92-99",
        "rock": "38 49-56 71-85",
    },
    "test": {
        "blues": "12-28 61-72 98-99",
        "classical": "11-29 34-41 49 77-79",
        "country": "30-40 43-44 46-48 50-51 53-64",
        "disco": "1 21 58 62-66 69 76-88 91-94 96-97 99",
        "hiphop": "0 26-27 30 40 43-45 51-54 62-75 99",
        "jazz": "73-99",
        "metal": "12-15 22-23 25-33 38-39 67 70 73-75 78 83 85 87-88",
        "pop": "0-1 13-14 43 63-66 69-79 82 88-96",
        "reggae": "34-40 46-48 52-53 64-68 71 79 82-84 87-90",
        "rock": "10-15 27-37 39-48 86-90",
    },
}


def filtered_split() -> dict[str, str]:
    """Return the split (train, val, test) of each track ("blues.00029") that is not excluded as faulty."""
    return {
        f"{genre}.{number:05d}": assigned
        for assigned, genres in FILTERED.items()
        for genre, ranges in genres.items()
        for part in ranges.split()
        for number in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)
    }


def _find(folder: Path) -> bool:
    return any(
        _NAME.fullmatch(file.name)
        for genre in GENRES
        if (folder / genre).is_dir()
        for file in (folder / genre).iterdir()
    )


def _read(root: Path, split: str) -> Reading:
    tracks = {}
    for genre in GENRES:
        for file in sorted((root / genre).iterdir()) if (root / genre).is_dir() else []:
            match = _NAME.fullmatch(file.name)
            if match and match["genre"] == genre:
                tracks[f"{genre}.{match['number']}"] = f"{genre}/{file.name}"
    broken = tracks.pop(BROKEN, None)
    notes = [f"{broken} is omitted: the file is known to be unreadable"] if broken else []
    if split == "random":
        notes.append(
            "scores on a random split are too high because of repetitions and tracks of one artist (see "
            "--split filtered)"
        )
        return Reading([Clip(path, track.split(".")[0]) for track, path in tracks.items()], notes)
    assigned = filtered_split()
    assigned.pop(BROKEN)
    clips = [
        Clip(tracks[track], track.split(".")[0], split=part)
        for track, part in assigned.items()
        if track in tracks
    ]
    faulty = sum(track not in assigned for track in tracks)
    notes.append(f"{faulty} tracks are omitted as faulty (Kereliuk, Sturm and Larsen, 2015)")
    return Reading(clips, notes + missing_note(len(assigned), sorted(set(assigned) - set(tracks))))


DATA_SET = DataSet(
    name="gtzan",
    title="GTZAN genre collection",
    homepage="http://marsyas.info/downloads/datasets.html",
    licence=(
        "none published: commercial recordings collected for research in 2000 and 2001; check that your use "
        "is allowed"
    ),
    citation=(
        "G. Tzanetakis, P. Cook: Musical genre classification of audio signals. "
        "IEEE Transactions on Speech and Audio Processing 10(5), 2002. "
        "Split `filtered`: C. Kereliuk, B. L. Sturm, J. Larsen: Deep learning and music adversaries. "
        "IEEE Transactions on Multimedia 17(11), 2015."
    ),
    remotes=(  # the first is the curators' own, without a checksum; the others are the original archive
        Remote("https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz"),
        Remote(
            "https://web.archive.org/web/20220328223413id_/http://opihi.cs.uvic.ca/sound/genres.tar.gz",
            SHA256,
        ),
        Remote("http://opihi.cs.uvic.ca/sound/genres.tar.gz", SHA256),
    ),
    archive="genres.tar.gz",
    megabytes=1_226,
    clips=999,
    layout="genre folders with blues/blues.00000.wav … (genres/ or genres_original/)",
    preset="music",
    splits={
        "random": "no split in the labels; `shard --val-fraction --test-fraction` draws one by track",
        "filtered": "the fault-filtered split, 442 + 197 + 290 tracks",
    },
    find=_find,
    read=_read,
)  # fmt: skip
