from __future__ import annotations

from pathlib import Path

import pytest

from shardwave.common.errors import UsageError
from shardwave.shards.clip import Clip, classes_of
from shardwave.shards.sources import class_folders, discover
from tests.shards.conftest import write_clip


def read(folder: Path) -> list[Clip]:
    return class_folders.read(folder, class_folders.audio_files(folder))


def test_the_class_is_the_parent_folder_and_other_files_are_passed_over(tmp_path: Path) -> None:
    write_clip(tmp_path / "rock" / "b.wav", 0)
    write_clip(tmp_path / "jazz" / "blues.00000.wav", 1)
    write_clip(tmp_path / "deep" / "jazz" / "a b.wav", 2)
    write_clip(tmp_path / "named.wav", 3)
    (tmp_path / "named.wav").rename(tmp_path / "rock" / "a.bin")  # content decides
    (tmp_path / "rock" / "README.md").write_text("# no audio")
    (tmp_path / "rock" / "labels.csv").write_text("path,label\n")
    (tmp_path / "rock" / ".hidden.wav").write_bytes(b"RIFF")
    (tmp_path / "rock" / "empty.wav").touch()  # claims to be audio: it is to be set aside, not passed over
    assert read(tmp_path) == [
        Clip("deep/jazz/a b.wav", "jazz"),
        Clip("jazz/blues.00000.wav", "jazz"),
        Clip("rock/a.bin", "rock"),
        Clip("rock/b.wav", "rock"),
        Clip("rock/empty.wav", "rock"),
    ]


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    write_clip(tmp_path / "rock" / "a.wav", 0)
    (tmp_path / "rock" / "up").symlink_to(tmp_path)
    assert [clip.path for clip in read(tmp_path)] == ["rock/a.wav"]


def test_folders_without_clips_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        discover(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it is a file"):
        discover(tmp_path / "file")
    with pytest.raises(UsageError, match="no audio files"):
        discover(tmp_path)
    write_clip(tmp_path / "a.wav", 0)
    with pytest.raises(UsageError, match="1 audio files are directly in"):
        read(tmp_path)


def test_one_class_only() -> None:
    assert classes_of([Clip("a", "y"), Clip("b", "x"), Clip("c")]) == ["x", "y"]
    assert classes_of([Clip("a")]) == []
    with pytest.raises(UsageError, match="at least two classes, got one: 'x'"):
        classes_of([Clip("a", "x"), Clip("b", "x")])
