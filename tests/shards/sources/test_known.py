"""Known data sets and folder layouts, on small files in the layouts of the published ones."""

from __future__ import annotations

import collections
import csv
import io
import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.auto_config import PRESETS
from shardwave.shards.clip import Clip
from shardwave.shards.sources import csv_labels, discover, fetch, known
from shardwave.shards.sources.known import gtzan, speech_commands

ESC10 = Path(__file__).parents[4] / "shared" / "data" / "esc10"


def silence(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(160))
    path.write_bytes(buffer.getvalue())
    return path


def make(folder: Path, *names: str) -> Path:
    for name in names:
        silence(folder / name)
    return folder


def labelled(result: dict[str, object]) -> list[Clip]:
    """The clips that `shard --labels` would see: the written CSV must satisfy its reader."""
    return csv_labels.read(Path(str(result["audio"])), Path(str(result["labels"])))


def test_every_known_data_set_says_what_a_user_must_know() -> None:
    for name in known.NAMES:
        data_set = known.get(name)
        assert (
            data_set.name == name
            and data_set.licence
            and data_set.citation
            and data_set.splits
            and data_set.layout
        )
        assert data_set.preset in PRESETS
        assert all(remote.url.startswith("https://") or remote.sha256 for remote in data_set.remotes)
        assert all(
            remote.sha256 is None or len(bytes.fromhex(remote.sha256)) == 32 for remote in data_set.remotes
        )
        assert data_set.archive.endswith((".zip", ".tar.gz")) and data_set.clips > 0


def test_names_are_light() -> None:
    code = (
        "import sys; import shardwave.shards.sources.known; "
        "assert not {'numpy', 'torch', 'urllib.request'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})


# --- GTZAN


def test_the_fault_filtered_split_is_the_published_one() -> None:
    """Kereliuk et al. (2015): 443, 197 and 290 tracks; the same lists stand in torchaudio."""
    from torchaudio.datasets import gtzan as published

    split = gtzan.filtered_split()
    assert collections.Counter(split.values()) == {"train": 443, "val": 197, "test": 290}
    for part, tracks in [
        ("train", published.filtered_train),
        ("val", published.filtered_valid),
        ("test", published.filtered_test),
    ]:
        assert {track for track, where in split.items() if where == part} == set(tracks)


def gtzan_folder(folder: Path, below: str = "genres_original", suffix: str = ".wav") -> Path:
    return make(
        folder, *(f"{below}/{genre}/{genre}.{n:05d}{suffix}" for genre in gtzan.GENRES for n in range(100))
    )


@pytest.mark.parametrize("below", ["genres_original", "genres", "Data/genres_original"])
def test_gtzan_layouts_and_both_splits(tmp_path: Path, below: str) -> None:
    audio = gtzan_folder(tmp_path / "gtzan", below)
    (audio / below / "input.mf").write_text("a list")
    make(audio, f"{Path(below).parent}/images_original/blues/not-a-track.wav")
    result = fetch.fetch("gtzan", tmp_path / "random", source=audio)
    clips = labelled(result)
    assert len(clips) == 999 and result["classes"] == list(gtzan.GENRES)
    assert not any("jazz.00054" in clip.path for clip in clips) and any(
        "jazz.00054" in note for note in result["notes"]
    )
    assert all(clip.split is None and clip.label == Path(clip.path).name.split(".")[0] for clip in clips)

    filtered = fetch.fetch("gtzan", tmp_path / "filtered", source=audio, split="filtered")
    assert filtered["splits"] == {"test": 290, "train": 442, "val": 197}
    assert {clip.split for clip in labelled(filtered)} == {"train", "val", "test"}
    assert any("70 tracks are omitted as faulty" in note for note in filtered["notes"])


def test_a_part_of_gtzan_is_taken_with_a_note(tmp_path: Path) -> None:
    audio = make(
        tmp_path / "part",
        *(f"{genre}/{genre}.{n:05d}.au" for genre in ("blues", "rock") for n in range(0, 100, 9)),
    )
    result = fetch.fetch("gtzan", tmp_path / "out", source=audio, split="filtered")
    assert result["classes"] == ["blues", "rock"] and any(
        "of the 929 clips listed are not in the folder" in n for n in result["notes"]
    )


# --- ESC


ESC50_ROWS = [
    (f"{fold}-{clip}-{take}-{target}.wav", fold, target, category, esc10, clip, take)
    for fold in range(1, 6)
    for clip, take, target, category, esc10 in [
        (1000 + fold, "A", 0, "dog", "True"),
        (1000 + fold, "B", 0, "dog", "True"),
        (2000 + fold, "A", 19, "thunderstorm", "False"),
        (3000 + fold, "A", 11, "sea_waves", "True"),
    ]
]


def esc50_folder(folder: Path) -> Path:
    (folder / "meta").mkdir(parents=True)
    with open(folder / "meta" / "esc50.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("filename", "fold", "target", "category", "esc10", "src_file", "take"), *ESC50_ROWS]
        )
    return make(folder, *(f"audio/{row[0]}" for row in ESC50_ROWS))


def test_esc50_and_its_esc10(tmp_path: Path) -> None:
    audio = esc50_folder(tmp_path / "unpacked" / "ESC-50-master")
    whole = fetch.fetch("esc50", tmp_path / "a", source=audio.parent)
    clips = labelled(whole)
    assert (
        len(clips) == 20
        and whole["folds"] == {str(fold): 4 for fold in range(1, 6)}
        and whole["groups"] == 15
    )
    assert whole["classes"] == ["dog", "sea waves", "thunderstorm"]
    assert clips[0] == Clip("ESC-50-master/audio/1-1001-A-0.wav", "dog", fold=1, group="1001")
    subset = fetch.fetch("esc10", tmp_path / "b", source=audio)
    assert subset["clips"] == 15 and subset["classes"] == ["dog", "sea waves"]
    (audio / "audio" / ESC50_ROWS[0][0]).unlink()
    assert fetch.fetch("esc50", tmp_path / "c", source=audio)["notes"][0].startswith(
        "1 of the 20 clips listed are not in the folder"
    )


def esc10_folder(folder: Path) -> Path:
    """The first release's layout, two recordings of two takes per class and fold."""
    classes = ["001 - Dog bark", "002 - Rain"]
    return make(
        folder,
        *(
            f"{name}/{fold}-{10 * i + fold}-{take}.ogg"
            for i, name in enumerate(classes)
            for fold in range(1, 6)
            for take in "AB"
        ),
    )


def test_esc10_first_release(tmp_path: Path) -> None:
    """As the published folder's own table says, where that folder is at hand; on a made one otherwise."""
    audio = ESC10 if ESC10.is_dir() else esc10_folder(tmp_path / "ESC-10-master")
    result = fetch.fetch("esc10", tmp_path / "out", source=audio)
    clips = labelled(result)
    if ESC10.is_dir():
        assert clips == csv_labels.read(ESC10, ESC10 / "labels.csv") and len(clips) == 400
    assert len(result["folds"]) == 5 and result["groups"] < len(clips)
    with pytest.raises(ShardwaveError, match="does not contain esc50"):  # ten classes are no ESC-50
        fetch.fetch("esc50", tmp_path / "out", source=audio)


# --- Speech Commands


def test_speech_commands(tmp_path: Path) -> None:
    names = [
        f"{word}/{speaker}_nohash_{n}.wav"
        for word in ("yes", "no")
        for speaker in ("0a1b", "2c3d", "4e5f")
        for n in (0, 1)
    ]
    audio = make(tmp_path / "sc", *names, "_background_noise_/pink_noise.wav")
    (audio / "validation_list.txt").write_text("".join(f"{name}\n" for name in names if "2c3d" in name))
    (audio / "testing_list.txt").write_text("".join(f"{name}\n" for name in names if "4e5f" in name))
    result = fetch.fetch("speech-commands", tmp_path / "out", source=audio)
    clips = labelled(result)
    assert (
        result["splits"] == {"test": 4, "train": 4, "val": 4}
        and result["groups"] == 3
        and result["classes"] == ["no", "yes"]
    )
    assert all(clip.group == Path(clip.path).name.split("_")[0] for clip in clips) and len(clips) == 12
    assert known.get("speech-commands").sha256 == published_sha256()
    assert speech_commands.DATA_SET.clips == 84_843 + 9_981 + 11_005


def published_sha256() -> str:
    from torchaudio.datasets import speechcommands

    return str(speechcommands._CHECKSUMS["http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"])


# --- layouts without a label file


def test_class_folders_stay_what_they_are(tmp_path: Path) -> None:
    audio = gtzan_folder(tmp_path / "Data")
    (audio / "features_30_sec.csv").write_text("filename,length,label\nblues.00000.wav,1,blues\n")
    clips = discover(audio)
    assert (
        len(clips) == 1000 and {clip.label for clip in clips} == set(gtzan.GENRES) and clips[0].split is None
    )


def test_train_val_test_folders(tmp_path: Path) -> None:
    names = [
        f"{split}/{label}/{n}.wav"
        for split in ("train", "Validation", "test")
        for label in ("a", "b")
        for n in range(2)
    ]
    clips = discover(make(tmp_path / "x", *names))
    assert collections.Counter((clip.split, clip.label) for clip in clips) == {
        (split, label): 2 for split in ("train", "val", "test") for label in ("a", "b")
    }


@pytest.mark.parametrize("test_files", [("test/1.wav", "test/2.au"), ("test/batch/1.wav",)])
def test_kaggle_folders_with_an_unlabelled_test_folder(tmp_path: Path, test_files: tuple[str, ...]) -> None:
    audio = make(
        tmp_path / "x",
        "train/rock/a.wav",
        "train/rock/b.wav",
        "train/jazz/c.wav",
        "train/jazz/d.wav",
        *test_files,
    )
    clips = discover(audio)
    assert [(clip.label, clip.split) for clip in clips if clip.path.startswith("test/")] == [
        (None, "test")
    ] * len(test_files)
    assert {(clip.label, clip.split) for clip in clips if clip.path.startswith("train/")} == {
        ("rock", "train"),
        ("jazz", "train"),
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a.wav", "test/b.wav"), "training clips must be in a folder named after their class"),
        (
            ("train/rock/a.wav", "train/jazz/a.wav", "val/pop/b.wav"),
            "the val folder has clips of classes that train lacks: pop",
        ),
        (("train/rock/a.wav", "train/jazz/a.wav", "val/b.wav"), "lacks: no class folder"),
        (
            ("train/rock/a.wav", "train/jazz/a.wav", "test/rock/b.wav", "test/polka/c.wav"),
            "the test folder.*polka",
        ),
    ],
)
def test_split_folders_that_contradict_themselves(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        discover(make(tmp_path / "x", *names))


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    clips = discover(make(tmp_path / "x", "train/a.wav", "helicopter/b.wav"))
    assert {clip.label for clip in clips} == {"train", "helicopter"} and not any(clip.split for clip in clips)


def test_esc_names_without_a_label_file(tmp_path: Path) -> None:
    flat = discover(esc50_folder(tmp_path / "esc50"))
    assert flat[0] == Clip("audio/1-1001-A-0.wav", "dog", fold=1, group="1001")
    assert {clip.label for clip in flat} == {"dog", "sea waves", "thunderstorm"}
    folders = discover(esc10_folder(tmp_path / "esc10"))
    assert {clip.label for clip in folders} == {"Dog bark", "Rain"} and {clip.fold for clip in folders} == {
        1,
        2,
        3,
        4,
        5,
    }
    one_fold = discover(make(tmp_path / "part", "1-1-A-0.wav", "1-2-A-1.wav"))
    assert [(clip.label, clip.fold) for clip in one_fold] == [("dog", None), ("rooster", None)]


@pytest.mark.parametrize("header", ["path,label,fold", "Filename,Genre,fold", "id,class,fold"])
def test_a_flat_folder_with_a_csv(tmp_path: Path, header: str) -> None:
    audio = make(tmp_path / "x", "a b.wav", "c.wav", "d.wav", "unlisted.wav")
    end = "" if header.startswith("id") else ".wav"
    (audio / "tracks.csv").write_text(f"{header}\na b{end},rock,1\nc{end},jazz,2\nd{end},jazz,1\n")
    assert discover(audio) == [
        Clip("a b.wav", "rock", fold=1),
        Clip("c.wav", "jazz", fold=2),
        Clip("d.wav", "jazz", fold=1),
    ]


def test_csv_in_the_folder_that_does_not_fit(tmp_path: Path) -> None:
    audio = make(tmp_path / "x", "a.wav", "b.wav")
    (audio / "one.csv").write_text("file,label\na.wav,x\nc.wav,y\n")
    assert [clip.path for clip in discover(audio)] == ["a.wav", "c.wav"]  # what does not exist is quarantined
    (audio / "one.csv").write_text("file,label\na.wav,x,z\nb.wav,y\n")
    with pytest.raises(UsageError, match=r"one.csv line 2: 3 values under 2 columns"):
        discover(audio)
    (audio / "two.csv").write_text("file,label\na.wav,x\nb.wav,y\n")
    with pytest.raises(UsageError, match="several label files .one.csv, two.csv.: name one with --labels"):
        discover(audio)


def test_fetched_folder_needs_no_labels_option(tmp_path: Path) -> None:
    audio = make(
        tmp_path / "x",
        *(
            f"recordings/{digit}_{who}_{n}.wav"
            for digit in range(2)
            for who in ("ann", "bob")
            for n in (0, 9)
        ),
    )
    result = fetch.fetch("fsdd", audio, source=audio)
    assert discover(audio) == labelled(result) and {clip.split for clip in discover(audio)} == {
        "train",
        "test",
    }
