from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.errors import UsageError
from shards.clip import Clip
from shards.sources import csv_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/x y.wav", "a/x y.wav", "a/é.wav"):
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "audio" / name).touch()
    return tmp_path / "audio"


def read(folder: Path, text: str, encoding: str = "utf-8") -> list[Clip]:
    labels = folder.parent / "labels.csv"
    labels.write_bytes(text.encode(encoding))
    return csv_labels.read(folder, labels)


def test_reads_every_column_and_sorts_by_path(folder: Path) -> None:
    clips = read(folder, "\ufefflabel,path,group,fold\nrock,b/x y.wav,g1,2\njazz,a/é.wav,g2,1\n,a/x y.wav,,1\n")
    assert clips == [Clip("a/x y.wav", None, 1), Clip("a/é.wav", "jazz", 1, "g2"), Clip("b/x y.wav", "rock", 2, "g1")]


def test_quoted_values_and_blank_lines(folder: Path) -> None:
    clips = read(folder, 'path,label,split\n"b/x y.wav","a, b",train\n\na/é.wav,c,test\n')
    assert [(clip.label, clip.split) for clip in clips] == [("c", "test"), ("a, b", "train")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,label\nb/x y.wav,a\n", "must have the columns path,label"),
        ("", "must have the columns path,label"),
        ("path,label\n", "names no clips"),
        ("path,label\nb/none.wav,a\nb/x y.wav,b\n", "1 of 2 paths do not exist"),
        ("path,label\nb/x y.wav,a\nb/x y.wav,b\n", "got b/x y.wav twice"),
        ("path,label\nb/x y.wav,a\n./b/x y.wav,b\n", "got b/x y.wav twice"),
        ("path,label\n,a\n", "path is empty"),
        ("path,label\n../b.wav,a\n", "must be relative to AUDIO"),
        ("path,label\n/etc/passwd,a\n", "must be relative to AUDIO"),
        ("path,label,fold\nb/x y.wav,a,one\n", "fold must be a whole number from 0, got one"),
        ("path,label,fold\nb/x y.wav,a,-1\n", "fold must be a whole number from 0, got -1"),
        ("path,label,fold\nb/x y.wav,a,1.5\n", "fold must be a whole number from 0, got 1.5"),
        ("path,label,fold\nb/x y.wav,a,1\na/x y.wav,b,\n", "fold must be given for every clip or for none, 1 of 2 have none"),
        ("path,label,split\nb/x y.wav,a,dev\n", "split must be one of train, val, test, got dev"),
        ("path,label,fold,group\nb/x y.wav,a,1,g\na/x y.wav,b,2,g\n", "clips of one group must lie in one fold, got group 'g'"),
        ("path,label,split,group\nb/x y.wav,a,train,g\na/x y.wav,b,test,g\n", "clips of one group must lie in one split"),
        ("path,label,split,fold\nb/x y.wav,a,train,1\n", "not both"),
    ],
)
def test_wrong_files_are_named(folder: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(folder, text)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_text(folder: Path) -> None:
    with pytest.raises(UsageError, match="CSV file in UTF-8"):
        read(folder, "path,label\nb/x y.wav,é\n", "latin-1")


def test_a_file_or_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        csv_labels.read(tmp_path / "none", tmp_path / "labels.csv")
    with pytest.raises(UsageError, match="must be a readable CSV file"):
        csv_labels.read(tmp_path, tmp_path / "labels.csv")
