from __future__ import annotations

import csv
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import UsageError
from shardwave.shards.build.builder import BuildOptions, build_table
from shardwave.shards.clip import Clip
from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set
from shardwave.shards.sources import table
from shardwave.shards.sources.suspicious_columns import suspicious


def gtzan(path: Path, rows: int = 30) -> Path:
    """A table as GTZAN's: filename, length, features, label."""
    lines = ["filename,length,mean,var,note,label"]
    lines += [
        f"blues.{i:05d}.wav,661794,{i / 7},{-i},note {i},{'blues' if i % 3 else 'rock'}"
        for i in reversed(range(rows))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


def test_reads_a_table_sorted_by_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = table.read(gtzan(tmp_path / "t.csv"))
    assert found.names == ["length", "mean", "var"]
    assert "column filename is read as path; not used as features: note" in capsys.readouterr().err
    assert [clip.path for clip in found.clips[:2]] == ["blues.00000.wav", "blues.00001.wav"]
    assert found.clips[0].label == "rock"
    assert found.features.dtype == np.float32 and np.allclose(found.features[7], [661794, 1, -7])


def test_columns_can_be_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A length of the file is no feature of the sound: a remark names it, and an option leaves it out."""
    whole = table.read(gtzan(tmp_path / "t.csv"))
    assert "length looks like a property of the file, var looks like a numbering" in (
        text := capsys.readouterr().err
    )
    assert "--drop-columns length" in text and text.count("looks like") == 2  # var counts the rows down
    found = table.read(tmp_path / "t.csv", BuildOptions(drop_columns="length, note"))
    assert found.names == ["mean", "var"] and np.array_equal(found.features, whole.features[:, 1:])
    for name, reason in (("label", "label names the clips"), ("tempo", "tempo is no column")):
        with pytest.raises(
            UsageError, match=f"--drop-columns must name columns of features .*{reason}: it has filename"
        ):
            table.read(tmp_path / "t.csv", BuildOptions(drop_columns=name))


def test_columns_that_describe_the_file_are_remarked() -> None:
    values = np.array([3.0, 1.0, 4.0], np.float32)
    names = [
        "length",
        "duration_ms",
        "Sample Rate",
        "song_id",
        "file path",
        "mfcc1_mean",
        "tempo",
        "idle",
        "lengthened",
    ]
    found = suspicious({name: values for name in names} | {"x": np.array([7.0, 5.0, 6.0], np.float32)})
    assert list(found) == ["length", "duration_ms", "Sample Rate", "song_id", "file path", "x"]


def test_parquet_says_the_same(tmp_path: Path) -> None:
    import pandas

    text = gtzan(tmp_path / "t.csv")
    pandas.read_csv(text).to_parquet(tmp_path / "t.parquet")
    one, other = table.read(text), table.read(tmp_path / "t.parquet")
    assert one.clips == other.clips and (one.features == other.features).all() and one.names == other.names
    frame = pandas.read_csv(text).sample(frac=1, random_state=0)  # its index is stored as a column
    frame.astype({"mean": np.float32, "label": "category"}).to_parquet(tmp_path / "t.parquet")
    other = table.read(tmp_path / "t.parquet")
    assert one.clips == other.clips and (one.features == other.features).all() and one.names == other.names


def test_a_table_becomes_a_set(tmp_path: Path) -> None:
    options = BuildOptions(val_fraction=0.2, test_fraction=0.2, min_shards=2, seed=3)
    made = build_table(gtzan(tmp_path / "t.csv"), tmp_path / "set", options=options)
    assert verify(open_set(tmp_path / "set"))["samples"] == 30
    opened = open_set(tmp_path / "set")
    assert (
        opened.feature_names == ["length", "mean", "var"]
        and opened.config is None
        and opened.views == ["full"]
    )
    assert opened.splits == ["train", "val", "test"] and made["clips"] == 30
    expected = table.read(tmp_path / "t.csv")
    seen = 0
    for split in opened.splits:
        view = opened.view(split)
        rows = view.gather(np.arange(len(view)), ("features.npy",))["features.npy"]
        assert (rows == expected.features[view.clip]).all()
        assert [view.meta(i)["path"] for i in range(len(view))] == [
            expected.clips[number].path for number in view.clip
        ]
        seen += len(view)
    assert seen == 30


def test_groups_are_never_broken(tmp_path: Path) -> None:
    written(tmp_path, "song,x,genre\n" + "".join(f"s{i // 5},{i},{'ab'[i // 5 % 2]}\n" for i in range(100)))
    build_table(tmp_path / "t.csv", tmp_path / "set", BuildOptions(label_column="genre", group_column="song"))
    verify(open_set(tmp_path / "set"))  # which refuses a group in two splits
    opened = open_set(tmp_path / "set")
    assert len(opened.view("train")) == 80 and opened.view("train").meta(0)["group"].startswith("s")


@pytest.mark.parametrize(
    "values",
    [
        ("None", "NA"),
        ("nan", "null"),
        ("01", "1"),
        ("true", "True"),
        ("1e3", "1000"),
        ("1", ""),
        ("1.0", "1"),
        ("0", "000"),
    ],
)
def test_labels_groups_and_ids_are_text(tmp_path: Path, values: tuple[str, str]) -> None:
    """Texts such as `NA`, `1e3` or `true` remain labels as they are written."""
    rows = [f"{i:03d},{i / 7},{values[i % 2]},{values[i // 10]}" for i in range(20)]
    found = table.read(written(tmp_path, "\n".join(["filename,f1,label,group", *rows])))
    assert [clip.path for clip in found.clips] == [f"{i:03d}" for i in range(20)]
    assert [clip.label for clip in found.clips] == [values[i % 2] or None for i in range(20)]
    assert [clip.group for clip in found.clips] == [values[i // 10] or None for i in range(20)]
    assert found.features[:, 0].tolist() == [np.float32(i / 7) for i in range(20)]


def test_a_group_called_na_stays_in_one_split(tmp_path: Path) -> None:
    rows = [f"{i:03d},{i / 7},{'ab'[i % 2]},{('NA', 'x', 'y', 'z', 'None')[i // 4]}" for i in range(20)]
    build_table(written(tmp_path, "\n".join(["filename,f1,label,group", *rows])), tmp_path / "set")
    opened = open_set(tmp_path / "set")
    groups = [{view.meta(i)["group"] for i in range(len(view))} for view in map(opened.view, opened.splits)]
    assert (
        len(groups) == 2
        and not groups[0] & groups[1]
        and groups[0] | groups[1] == {"NA", "x", "y", "z", "None"}
    )


def test_any_text_and_any_number_survives(tmp_path: Path) -> None:
    """Random labels, groups and ids come back as they were, random float32 values bit by bit."""
    rng = random.Random(1)
    alphabet = "abzNA019 .,;'\"\t#éß漢😀\u2028|=+-@%\\/"
    rows = {}
    while len(rows) < 200:
        name, label, group = ("".join(rng.choices(alphabet, k=rng.randint(1, 10))).strip() for _ in range(3))
        value = struct.unpack("<f", struct.pack("<I", rng.getrandbits(32)))[0]
        if name and label and group and np.isfinite(value):
            rows[name] = (label, group, value)
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("path", "label", "group", "x"), *((name, *values) for name, values in rows.items())]
        )
    found = table.read(tmp_path / "t.csv")
    values = {
        clip.path: (clip.label, clip.group, float(x))
        for clip, (x,) in zip(found.clips, found.features, strict=True)
    }
    assert values == rows


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Unnamed: 0",
        "Unnamed: 0.1",
        "index",
        "__index_level_0__",
        "Row Id",
        "target",
        "class_id",
        "id",
        "speaker_id",
    ],
)
def test_columns_that_number_rows_or_name_classes_are_no_features(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are sorted by class, or are the class, so that a model trained on them would be perfect."""
    rows = [f"{i},{'ab'[i // 10]}{i}.wav,{i * 7 % 5},{'ab'[i // 10]},1" for i in range(20)]
    found = table.read(written(tmp_path, "\n".join([f"{name},filename,f1,label,group", *rows])))
    assert found.names == ["f1"]
    assert f"not used as features: {name or 'a column without a name'}\n" in capsys.readouterr().err


def test_rows_without_paths_are_numbered(tmp_path: Path) -> None:
    assert [clip.path for clip in table.read(written(tmp_path, "x,label\n1,a\n2,b\n")).clips] == [
        "row000000000",
        "row000000001",
    ]


def test_segments_of_a_file_stay_together(tmp_path: Path) -> None:
    found = table.read(
        written(tmp_path, "file,start,end,x,label\na.wav,3,6,1,u\na.wav,0,3,2,v\nb.wav,0,3,3,u\n")
    )
    assert found.clips == [
        Clip("a.wav", "v", start=0, end=3),
        Clip("a.wav", "u", start=3, end=6),
        Clip("b.wav", "u", start=0, end=3),
    ]
    assert found.names == ["x"] and found.features[:, 0].tolist() == [2, 1, 3]
    assert len({clip.effective_group for clip in found.clips}) == 2


def test_values_from_paths_and_a_choice_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "path,x\n" + "".join(
        f"{split}/{label}-{i}.wav,{i}\n" for split in ("train", "test") for label in "abc" for i in range(2)
    )
    options = BuildOptions(label_from="/(.)-", split_from="^([^/]+)/", classes="c,a")
    found = table.read(written(tmp_path, text), options)
    assert [(clip.split, clip.label) for clip in found.clips] == [
        (split, label) for split in ("test", "train") for label in "aacc"
    ]
    assert found.features[:, 0].tolist() == [0, 1, 0, 1] * 2
    assert "--classes: 4 clips of 1 other classes are omitted" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--group-from tag:artist reads audio files: a --table has none"):
        table.read(tmp_path / "t.csv", BuildOptions(label_from="/(.)-", group_from="tag:artist"))


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        ("a,b\n1,x\n", {}, "has no column of classes: it has a, b; name one with --label-column"),
        (
            "a,b\n1,x\n",
            {"label_column": "c"},
            "--label-column must be a column of .*t.csv, got 'c': it has a, b",
        ),
        ("a,label\n1,x\n", {"group_column": "song"}, "--group-column must be a column of"),
        ("a,label\n1,x\n,y\n3,x\n", {}, "line 3: column a must hold finite numbers, got '':"),
        ("a,label\n1,x\ninf,y\n3,x\n", {}, "line 3: column a must hold finite numbers, got 'inf'"),
        ("a,label\n1,x\n1e39,y\n", {}, "line 3: column a must hold finite numbers, got '1e39'"),
        ("a,label\n1e999,x\n1,y\n", {}, "line 2: column a must hold finite numbers, got '1e999'"),
        (
            "a,label\n1,x\n\n2,y\nthree,x\n,y\n",
            {},
            r"line 5: column a must hold finite numbers, got 'three' \(2 such rows\)",
        ),
        (
            "a,label\nNA,x\n2,y\nnan,x\n",
            {},
            r"line 2: column a must hold finite numbers, got 'NA' \(2 such rows\)",
        ),
        (
            "a;label\n1;x\n2,5;y\n",
            {},
            "line 3: column a must hold finite numbers, decimals with a point, got '2,5'",
        ),
        ("a,label\n1_000,x\n1,y\n", {}, "got '1_000'"),
        ("a,label\nk,x\nl,y\n", {}, "has no numeric columns"),
        ("a,label\n,x\n,y\n", {}, "has no numeric columns"),
        ("a,label\n", {}, "has no rows"),
        ("a,label,path\n1,x,p\n2,y,p\n", {}, "line 3: p is already named in .*t.csv line 2"),
        ("a,label,fold\n1,x,1\n2,y,b\n", {}, "line 3: fold must be a whole number"),
        ("a,label\n1,x,2\n", {}, "line 2: 3 values under 2 columns"),
        ("a,a,label\n1,2,x\n", {}, "two columns have the name 'a'"),
        (
            "a,label\n1,x\n2,y\n",
            {"classes": "x,z"},
            "--classes must name classes of the data, got z: there are x, y",
        ),
        (
            "a,label\n1,x\n2,y\n",
            {"classes": " , "},
            "--classes must name classes of the data, got none: there are x, y",
        ),
        ("", {}, "has no column of classes: it has no columns"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, arguments: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        table.read(written(tmp_path, text), BuildOptions(**arguments))  # type: ignore[arg-type]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04...")
    with pytest.raises(UsageError, match="t.xlsx is a spreadsheet or an archive, not CSV or Parquet"):
        table.read(tmp_path / "t.xlsx")
    with pytest.raises(UsageError, match="--table must be a readable file"):
        table.read(tmp_path / "none.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(UsageError, match="t.parquet cannot be read as Parquet"):
        table.read(tmp_path / "t.parquet")
