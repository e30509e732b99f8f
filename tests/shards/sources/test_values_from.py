"""Class, group and split from paths and tags; folders that are folds or splits; a choice of classes."""

from __future__ import annotations

import collections
import subprocess
from pathlib import Path
from typing import Any

import mutagen
import pytest
import soundfile
from mutagen.id3 import ID3, TPE1
from upath import UPath

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.sources import discover
from shardwave.shards.sources.values_from import read_tag
from shardwave.shards.storage.any_path import AnyPath
from tests.shards.conftest import write_clip


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(audio: AnyPath, **options: Any) -> list[Clip]:
    return discover(audio, BuildOptions(**options))


NAMES = [
    f"{split}/{who}-{word}-{n}.wav"
    for split in ("training", "dev")
    for who in ("ann", "bob")
    for word in ("yes", "no")
    for n in "01"
]


def test_values_from_paths(tmp_path: Path) -> None:
    audio = touch(
        tmp_path / "x", *(name.replace("dev/ann", "dev/eve").replace("dev/bob", "dev/joe") for name in NAMES)
    )
    clips = found(audio, label_from="-([a-z]+)-", group_from="/([^/-]+)-", split_from="^([^/]+)/")
    assert len(clips) == 16 and clips[0] == Clip("dev/eve-no-0.wav", "no", group="eve", split="val")
    assert collections.Counter((clip.split, clip.label) for clip in clips) == {
        (split, label): 4 for split in ("train", "val") for label in ("yes", "no")
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"label_from": "-(yes)-"},
            "--label-from '-(yes)-' finds no value in 8 of 16 paths (the first: dev/ann-no-0.wav)",
        ),
        ({"label_from": "-yes-"}, "--label-from must have a group in parentheses"),
        ({"label_from": "-(yes-"}, "--label-from must be a regular expression, got '-(yes-': missing )"),
        ({"label_from": "-()[a-z]+-"}, "finds no value in 16 of 16 paths"),
        (
            {"label_from": "-([a-z]+)-", "split_from": "/([a-z]+)-"},
            "--split-from in dev/ann-no-0.wav: split must be one of train",
        ),
        (
            {"label_from": "-([a-z]+)-", "group_from": "/([a-z]+)-", "split_from": "^([a-z]+)/"},
            "clips of one group must be in one",
        ),
        ({"label_from": "-([a-z]+)-", "group_from": "tag:artist"}, None),  # empty files: no tag is expected
    ],
)
def test_expressions_that_do_not_fit(tmp_path: Path, options: dict[str, str], told: str | None) -> None:
    audio = touch(tmp_path / "x", *NAMES)
    if told is None:
        assert {clip.group for clip in found(audio, **options)} == {None}
        return
    with pytest.raises(UsageError) as caught:
        found(audio, **options)
    assert told in str(caught.value)


def test_options_win_over_the_table_and_the_folders(tmp_path: Path) -> None:
    audio = touch(tmp_path / "x", "dog/a-1.wav", "cat/b-2.wav", "cat/c-2.wav")
    assert [clip.group for clip in found(audio, group_from="-(.)")] == ["2", "2", "1"]
    (tmp_path / "labels.csv").write_text(
        "path,label,group\ndog/a-1.wav,x,g\ncat/b-2.wav,x,g\ncat/c-2.wav,y,g\n"
    )
    clips = found(audio, labels=tmp_path / "labels.csv", label_from="^(.)", group_from="/(.)")
    assert [(clip.label, clip.group) for clip in clips] == [("c", "b"), ("c", "c"), ("d", "a")]
    (tmp_path / "labels.csv").write_text("path\ndog/a-1.wav\ncat/b-2.wav\n")
    assert [clip.label for clip in found(audio, labels=tmp_path / "labels.csv", label_from="^(.)")] == [
        "c",
        "d",
    ]


def test_folds_and_splits_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With classes from elsewhere the folders say folds or splits, unless that would break a group."""
    audio = touch(tmp_path / "x", *NAMES)
    clips = found(audio, label_from="-([a-z]+)-")
    assert {(clip.path.split("/")[0], clip.split) for clip in clips} == {
        ("training", "train"),
        ("dev", "val"),
    }
    assert "splits are read from folder names (train, val)" in capsys.readouterr().err
    assert {clip.split for clip in found(audio, label_from="-([a-z]+)-", group_from="/([a-z]+)-")} == {None}
    assert "splits from folder names are not used" in capsys.readouterr().err
    folds = touch(
        tmp_path / "y", *(f"audio/fold{k}/{word}-{k}.wav" for k in (1, 2, 10) for word in ("yes", "no"))
    )
    assert {clip.fold for clip in found(folds, label_from="/([a-z]+)-")} == {1, 2, 10}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ("fold1/a.wav", "fold2/b.wav", "fold3/c.wav"),
            "the folders fold1, fold2, fold3 with the files are folds, not classes",
        ),
        (("x/Fold 1/a.wav", "x/Fold_02/b.wav"), "are folds, not classes: give --labels CSV"),
        (
            ("dog/train/a.wav", "dog/test/b.wav", "cat/train/c.wav", "cat/test/d.wav"),
            "the folders test, train with the files are splits",
        ),
        (("val/a.wav", "test/b.wav"), "the folders test, val with the files are splits, not classes"),
        (
            ("data/train/a.wav", "data/test/b.wav"),
            "training clips must be in a folder named after their class",
        ),
    ],
)
def test_folders_that_are_no_classes(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        discover(touch(tmp_path / "x", *names))
    assert told in str(caught.value) and "--label-from REGEX" in str(caught.value)


def test_class_folders_in_folders_of_folds_and_splits(tmp_path: Path) -> None:
    folds = touch(
        tmp_path / "folds", *(f"audio/fold{k}/{label}/{k}.wav" for k in (1, 2) for label in ("dog", "cat"))
    )
    assert found(folds)[0] == Clip("audio/fold1/cat/1.wav", "cat", fold=1) and {
        clip.fold for clip in found(folds)
    } == {1, 2}
    splits = touch(
        tmp_path / "splits",
        *(f"all/{s}/{label}/{s}.wav" for s in ("train", "testing") for label in ("dog", "cat")),
    )
    assert found(splits)[0] == Clip("all/testing/cat/testing.wav", "cat", split="test")


def test_choice_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = touch(
        tmp_path / "x", *(f"{label}/{n}.wav" for label in ("dog", "cat", "cow, brown", "bee") for n in "012")
    )
    assert {clip.label for clip in found(audio, classes='dog, "cow, brown"')} == {"dog", "cow, brown"}
    assert "--classes: 6 clips of 2 other classes are omitted" in capsys.readouterr().err
    with pytest.raises(
        UsageError,
        match="--classes must name classes of the data, got Dog, cow: there are bee, cat, cow, brown",
    ):
        found(audio, classes="Dog,cow,cat")
    (tmp_path / "labels.csv").write_text("path,label\ndog/0.wav,dog\ncat/0.wav,cat\nbee/0.wav,\n")
    clips = found(audio, labels=tmp_path / "labels.csv", classes="dog")
    assert [clip.label for clip in clips] == [None, "dog"]  # clips without a class are of no other class


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A song in each format, with the artist in its tags."""
    folder = tmp_path_factory.mktemp("songs")
    write_clip(folder / "rock" / "a.wav", 0)
    samples, rate = soundfile.read(folder / "rock" / "a.wav")
    for name in ("b.flac", "c.ogg", "d.mp3", "e.opus", "f.aiff"):
        soundfile.write(
            folder / "rock" / name,
            samples,
            rate,
            format="OGG" if name == "e.opus" else None,
            subtype="OPUS" if name == "e.opus" else None,
        )
    for path in sorted((folder / "rock").iterdir()):
        file = mutagen.File(path)
        if path.suffix in (".wav", ".aiff", ".mp3"):
            if file.tags is None:
                file.add_tags()
            file.tags.add(TPE1(text=[f"Ann {path.name[0]}", "Bob"]))
        else:
            file["artist"] = [f"Ann {path.name[0]}", "Bob"]
        file.save()
    return folder


def test_tags_of_every_format(songs: Path, tmp_path: Path) -> None:
    clips = found(songs, group_from="tag:artist")
    assert [clip.group for clip in clips] == [f"Ann {letter}" for letter in "abcdef"]
    assert [clip.label for clip in found(songs, label_from="tag:artist")] == [clip.group for clip in clips]
    raw = tmp_path / "x.mp3"  # tags before data that is no MPEG frame
    raw.write_bytes(b"\0" * 4_000)
    tags = ID3()
    tags.add(TPE1(text=["Eve"]))
    tags.save(raw)
    assert (
        read_tag(raw, "artist") == "Eve"
        and read_tag(raw, "album") is None
        and read_tag(raw, "no such tag") is None
    )
    assert found(UPath(f"file://{songs}"), group_from="tag:Artist") == clips


def test_files_without_the_tag_are_named(songs: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "x" / "rock" / "z.wav", 0)
    write_clip(tmp_path / "x" / "rock" / "y.wav", 0)
    with pytest.raises(
        UsageError, match="--group-from: there is no tag 'artist' in 2 of 2 files .the first: rock/y.wav"
    ):
        found(tmp_path / "x", group_from="tag:artist")
    subprocess.run(["mkfifo", str(tmp_path / "x" / "pipe.wav")], check=True)
    assert (
        read_tag(tmp_path / "x" / "pipe.wav", "artist") is None
    )  # and does not wait for somebody to write into it
