from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import UsageError
from shards.build import BuildOptions, build_table
from shards.shardset import ShardSet
from shards.sources import table
from shards.verify import verify


def gtzan(path: Path, rows: int = 30) -> Path:
    """A table as GTZAN's: filename, length, features, label."""
    lines = ["filename,length,mean,var,note,label"]
    lines += [f"blues.{i:05d}.wav,661794,{i / 7},{-i},note {i},{'blues' if i % 3 else 'rock'}" for i in reversed(range(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_reads_a_table_sorted_by_path(tmp_path: Path) -> None:
    found = table.read(gtzan(tmp_path / "t.csv"))
    assert found.names == ["length", "mean", "var"] and found.left_out == ["note"]
    assert [clip.path for clip in found.clips[:2]] == ["blues.00000.wav", "blues.00001.wav"]
    assert found.clips[0].label == "rock"
    assert found.features.dtype == np.float32 and np.allclose(found.features[7], [661794, 1, -7])


def test_parquet_says_the_same(tmp_path: Path) -> None:
    import pandas

    csv = gtzan(tmp_path / "t.csv")
    pandas.read_csv(csv).to_parquet(tmp_path / "t.parquet")
    one, other = table.read(csv), table.read(tmp_path / "t.parquet")
    assert one.clips == other.clips and (one.features == other.features).all() and one.names == other.names


def test_a_table_becomes_a_set(tmp_path: Path) -> None:
    options = BuildOptions(val_fraction=0.2, test_fraction=0.2, min_shards=2, seed=3)
    made = build_table(gtzan(tmp_path / "t.csv"), tmp_path / "set", options=options)
    assert verify(tmp_path / "set")["samples"] == 30
    opened = ShardSet.open(tmp_path / "set")
    assert opened.feature_names == ["length", "mean", "var"] and opened.config is None and opened.views == ["full"]
    assert opened.partitions == ["train", "val", "test"] and made["clips"] == 30
    expected = table.read(tmp_path / "t.csv")
    seen = 0
    for partition in opened.partitions:
        view = opened.view(partition)
        rows = view.gather(np.arange(len(view)), ("features.npy",))["features.npy"]
        assert (rows == expected.features[view.clip]).all()
        assert [view.meta(i)["path"] for i in range(len(view))] == [expected.clips[number].path for number in view.clip]
        seen += len(view)
    assert seen == 30


def test_groups_are_never_broken(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("song,x,genre\n" + "".join(f"s{i // 5},{i},{'ab'[i // 5 % 2]}\n" for i in range(100)))
    build_table(tmp_path / "t.csv", tmp_path / "set", "genre", "song")
    verify(tmp_path / "set")  # which refuses a group in two partitions
    opened = ShardSet.open(tmp_path / "set")
    assert len(opened.view("train")) == 80 and opened.view("train").meta(0)["group"].startswith("s")


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        ("a,b\n1,x\n", {}, "--label-column must be a column of"),
        ("a,label\n1,x\n", {"group_column": "song"}, "--group-column must be a column of"),
        ("a,label\n1,x\n,y\n3,x\n", {}, "column a must hold finite numbers, got .*nan.* in row 2"),
        ("a,label\n1,x\ninf,y\n3,x\n", {}, "column a must hold finite numbers, got .*inf.* in row 2"),
        ("a,label\n1,x\n1e39,y\n", {}, "column a must hold finite numbers"),
        ("a,label\n1,x\n2,y\nthree,x\n", {}, "column a must hold finite numbers, got 'three' in row 3"),
        ("a,label\nk,x\nl,y\n", {}, "has no numeric columns"),
        ("a,label\n", {}, "has no rows"),
        ("a,label,path\n1,x,p\n2,y,p\n", {}, "got p twice"),
        ("a,label,fold\n1,x,1\n2,y,b\n", {}, "fold must be a whole number"),
        ("", {}, "cannot be read"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, arguments: dict[str, str], told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        table.read(tmp_path / "t.csv", **arguments)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a .csv or .parquet file"):
        table.read(tmp_path / "t.xlsx")
    with pytest.raises(UsageError, match="must be a readable file"):
        table.read(tmp_path / "none.csv")
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        table.read(tmp_path / "t.parquet")
