"""Groups of `shard --groups`: they replace those of the clips, and folds and splits follow them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwave.common.errors import UsageError
from shardwave.shards.clip import Clip
from shardwave.shards.sources.groups_file import apply


def written(folder: Path, text: str) -> Path:
    path = folder / "groups.csv"
    path.write_text(text)
    return path


def test_groups_are_replaced_and_folds_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [Clip("a.wav", "x", fold=1), Clip("b.wav", "x", fold=2), Clip("c.wav", "x", fold=2, group="old")]
    path = written(tmp_path, "path,group\na.wav,new\nb.wav,new\nd.wav,new\n")
    one, other, kept = apply([*clips], path)
    assert (one.group, other.group, kept.group) == ("new", "new", "old")
    assert one.fold == other.fold == 1 and kept.fold == 2
    assert "1 clips move to the fold of their group (the first: b.wav)" in capsys.readouterr().err


def test_the_split_of_most_clips_is_used(tmp_path: Path) -> None:
    clips = [
        Clip(f"{name}.wav", "x", split=split)
        for name, split in zip("abc", ("train", "test", "test"), strict=True)
    ]
    path = written(tmp_path, "path,group\na.wav,g\nb.wav,g\nc.wav,g\n")
    assert {clip.split for clip in apply(clips, path)} == {"test"}


def test_segments_are_named_by_their_times(tmp_path: Path) -> None:
    clips = [Clip("a.wav", start=0.0, end=1.0), Clip("a.wav", start=1.0, end=None)]
    groups = [clip.group for clip in apply(clips, written(tmp_path, "path,group,start,end\na.wav,g,1,\n"))]
    assert groups == [None, "g"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,name\na.wav,g\n", "must have the columns path and group: it has path, name"),
        ("path,group\nother.wav,g\n", "names none of the 1 clips"),
        ("path,group,start,end\na.wav,g,soon,\n", "line 2: start and end must be seconds"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply([Clip("a.wav")], written(tmp_path, text))
