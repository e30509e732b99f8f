from __future__ import annotations

import random
from pathlib import Path

import pytest

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.sources import csv_labels, discover

CASES = Path(__file__).parents[4] / "shared" / "cases"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return touch(tmp_path / "audio", "b/x y.wav", "a/x y.wav", "a/é.wav")


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    labels = folder.parent / "labels.csv"
    labels.write_bytes(text.encode(encoding))
    return labels


def read(folder: Path, text: str, encoding: str = "utf-8", **options: str) -> list[Clip]:
    return csv_labels.read(folder, write(folder, text, encoding), BuildOptions(**options))  # type: ignore[arg-type]


def test_reads_every_column_and_sorts_by_path(folder: Path) -> None:
    clips = read(
        folder, "\ufefflabel,path,group,fold\nrock,b/x y.wav,g1,2\njazz,a/é.wav,g2,1\n,a/x y.wav,,1\n"
    )
    assert clips == [
        Clip("a/x y.wav", None, 1),
        Clip("a/é.wav", "jazz", 1, "g2"),
        Clip("b/x y.wav", "rock", 2, "g1"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        'path,label\n"b/x y.wav","a, b"\n\na/é.wav,c\n',
        'path,label\r\n"b/x y.wav","a, b"\r\na/é.wav,c\r\n,\r\n\r\n',  # of Windows, with an empty row
        'path,label\r"b/x y.wav","a, b"\ra/é.wav,c',  # from an old Mac
        "\n\npath\tlabel\nb/x y.wav\ta, b\na/é.wav\tc\n",
        "path;label\nb/x y.wav;a, b\na/é.wav;c\n",
        ' path , label \n"b/x y.wav"," a, b "\na/é.wav,c\t\n',
    ],
)
def test_ways_to_write_the_same_table(folder: Path, text: str) -> None:
    assert [(clip.path, clip.label) for clip in read(folder, text)] == [
        ("a/é.wav", "c"),
        ("b/x y.wav", "a, b"),
    ]


def test_labels_and_groups_stay_as_they_are_written(folder: Path) -> None:
    """What pandas takes for missing, for a number or for a truth value."""
    for value in (
        "NA",
        "None",
        "nan",
        "null",
        "N/A",
        "01",
        "1",
        "1.0",
        "true",
        "True",
        "1e3",
        "1000",
        "000",
        "-",
        '6" pipe',
    ):
        (clip,) = read(folder, f"path,label,group\na/é.wav,{value},{value}\n")
        assert (clip.label, clip.group) == (value, value)


def test_any_text_survives(tmp_path: Path) -> None:
    """Random labels, groups and file names, quoted where CSV asks for it, come back as they were."""
    import csv

    rng = random.Random(0)
    alphabet = "abzNA019 .,;'\"\t#éß漢😀\u2028\u00a0|=+-@%\\"
    rows = {}
    while len(rows) < 300:
        name, label, group = ("".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(3))
        if name.strip() and name.strip(".") and label.strip() and group.strip():
            rows[name] = (label.strip(), group.strip())
    audio = touch(tmp_path / "audio", *rows)
    for delimiter in ",\t;":
        with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows(
                [("path", "label", "group"), *((name, *values) for name, values in rows.items())]
            )
        clips = csv_labels.read(audio, tmp_path / "labels.csv")
        assert {clip.path: (clip.label, clip.group) for clip in clips} == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "label,note\nb/x y.wav,a\n",
            "has no column of audio files: it has label, note; name one with --path-column",
        ),
        (
            "a/é.wav,b/x y.wav\nrock,pop\n",
            "has no column of audio files: it has a/é.wav, b/x y.wav",
        ),  # no header
        ("path,note\nb/x y.wav,a\n", "has no column of classes"),
        ("", "it has no columns"),
        ("path,label\n", "has no rows"),
        ("path,label\n,\n\n", "has no rows"),
        ("path,label\nb/none.wav,a\nnone.wav,b\n", "none of the 2 files exists"),
        (
            "path,label\nb/x y.wav,a\n\nb/x y.wav,b\n",
            "labels.csv line 4: b/x y.wav is already named in {labels} line 2",
        ),
        ("path,label\nb/x y.wav,a\n./b/x y.wav,b\n", "b/x y.wav is already named"),
        ("path,label\n,a\n", "line 2: path is empty"),
        ("path,label\n../b.wav,a\n", "must be relative to AUDIO"),
        ("path,label\n/etc/passwd,a\n", "must be relative to AUDIO"),
        ("path,label\nx y.wav,c\n", "line 2: x y.wav matches 2 files below"),
        ("path,label,fold\nb/x y.wav,a,one\n", "line 2: fold must be a whole number from 0 to 9999, got one"),
        ("path,label,fold\nb/x y.wav,a,-1\n", "fold must be a whole number from 0 to 9999, got -1"),
        ("path,label,fold\nb/x y.wav,a,1.5\n", "fold must be a whole number from 0 to 9999, got 1.5"),
        (
            "path,label,fold\nb/x y.wav,a,10000000007\n",
            "fold must be a whole number from 0 to 9999, got 10000000007",
        ),
        ("path,label,fold\nb/x y.wav,a,10000\n", "fold must be a whole number from 0 to 9999, got 10000"),
        ("path,label,fold\nb/x y.wav,a,²\n", "fold must be a whole number"),
        ("path,label,split\nb/x y.wav,a,rest\n", "split must be one of train, val, test, got rest"),
        # strict CSV
        (
            "path,label\nb/x y.wav,pop, dance\n",
            "line 2: 3 values under 2 columns ('b/x y.wav', 'pop', ' dance')",
        ),
        ("path,label\na/é.wav,c\n\nb/x y.wav\n", "line 4: 1 value under 2 columns ('b/x y.wav')"),
        ("path;label\nb/x y.wav;a;b\n", "line 2: 3 values under 2 columns"),
        (
            'path,label\na/é.wav,c\nb/x y.wav,"pop\na/x y.wav,rock\n',
            'line 3: a quote (") that begins on this line is not closed',
        ),
        (
            'path,label\nb/x y.wav,"pop\na/x y.wav,rock\na/é.wav,"c"\n',
            'line 2: a quote (") that begins on this line',
        ),
        ('path,label\nb/x y.wav,"pop" rock\n', 'line 2: a quote (")'),
        ('path,label\nb/x y.wav,"pop\na/é.wav,rock"\n', "line 2: the label spans several lines"),
        ('path,label\n"b/none.wav,a\na/é.wav",rock\nb/x y.wav,c\n', "line 2: the path spans several lines"),
        ("path,label,label\nb/x y.wav,a,b\n", "two columns have the name 'label'"),
        ("path,label, label\nb/x y.wav,a,b\n", "two columns have the name 'label'"),
        ("path,label\nb/x y.wav,a\0\n", "line 2: a NUL byte"),
        (
            'path,label\n"b/none.wav,a\na/é.wav",rock\n',
            "line 2: the path spans several lines ('b/none.wav,a\\na/é.wav')",
        ),
        # segments
        (
            "path,label,start,end\na/é.wav,c,1,0.5\n",
            "line 2: a segment must end after it starts, got start 1 and end 0.5",
        ),
        ("path,label,start,end\na/é.wav,c,1,1\n", "must end after it starts"),
        (
            "path,label,start\na/é.wav,c,-1\n",
            "line 2: start must be a time in seconds from 0, such as 2.5, got -1",
        ),
        (
            "path,label,start\na/é.wav,c,0:30\n",
            "start must be a time in seconds from 0, such as 2.5, got 0:30",
        ),
        ("path,label,end\na/é.wav,c,nan\n", "end must be a time in seconds"),
        ("path,label,end\na/é.wav,c,1e999\n", "end must be a time in seconds"),
        (
            "path,label,start,end\na/é.wav,c,0,2\na/é.wav,d,,2\n",
            "line 3: a/é.wav (0 s to 2 s) is already named in",
        ),
    ],
)
def test_wrong_files_are_named(folder: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(folder, text)
    assert told.format(labels=folder.parent / "labels.csv") in str(caught.value) and "\n" not in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "path,label,fold\nb/x y.wav,a,1\na/x y.wav,b,\n",
            "fold must be given for every clip or for none, 1 of 2 have none",
        ),
        (
            "path,label,fold,group\nb/x y.wav,a,1,g\na/x y.wav,b,2,g\n",
            "clips of one group must be in one fold, got group 'g'",
        ),
        (
            "path,label,split,group\nb/x y.wav,a,train,g\na/x y.wav,b,test,g\n",
            "clips of one group must be in one split",
        ),
        ("path,label,split,fold\nb/x y.wav,a,train,1\n", "not both"),
        (
            "path,label,fold,start\na/é.wav,a,1,0\na/é.wav,b,2,3\n",
            "must be in one fold, got file a/é.wav in fold 1 and 2",
        ),
    ],
)
def test_folds_and_splits_that_contradict_themselves(folder: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        discover(folder, BuildOptions(labels=write(folder, text)))
    assert told in str(caught.value)


def test_files_that_are_not_text(folder: Path) -> None:
    with pytest.raises(UsageError, match="line 3: byte 0xe9 is not UTF-8 .is the file in Latin-1"):
        read(folder, "path,label\nb/x y.wav,a\na/x y.wav,é\n", "latin-1")
    with pytest.raises(UsageError, match="line 1: a NUL byte, as in UTF-16"):
        read(folder, "path,label\nb/x y.wav,a\n", "utf-16")
    with pytest.raises(UsageError, match="is a spreadsheet or an archive"):
        read(folder, "PK\x03\x04\0")


def test_a_file_or_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        csv_labels.read(tmp_path / "none", tmp_path / "labels.csv")
    with pytest.raises(UsageError, match="--labels must be a readable file"):
        csv_labels.read(tmp_path, tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("filename,category", "column filename is read as path, category as label"),
        ("File Name,Class", "column File Name is read as path, Class as label"),
        ("fname,label", "column fname is read as path\n"),
        ("audio_file,primary_label", "column audio_file is read as path, primary_label as label"),
        ("path,genre", "column genre is read as label"),
        (
            "target,filename,fold,category",
            "column filename is read as path, category as label; not used: target",
        ),
        (
            "classID,slice_file_name,class,start,end",
            "slice_file_name is read as path, class as label; not used: classID, start, end",
        ),
        ("filename,species,speaker", "column filename is read as path, species as label, speaker as group"),
        (
            "filename,species,speaker,fold",
            "column filename is read as path, species as label; not used: speaker",
        ),
        (",path,label,take", "not used: a column without a name, take"),
    ],
)
def test_column_names_that_people_have(
    folder: Path, header: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {
        "filename": "a/é.wav",
        "target": "1",
        "classID": "1",
        "fold": "3",
        "speaker": "ann",
        "start": "9",
        "end": "10",
    }
    roles = {
        "category": "dog",
        "class": "dog",
        "Class": "dog",
        "label": "dog",
        "primary_label": "dog",
        "genre": "dog",
        "species": "dog",
    }
    row = [
        values.get(name) or roles.get(name) or ("" if name in ("", "take") else "a/é.wav")
        for name in header.split(",")
    ]
    (clip,) = read(folder, f"{header}\n{','.join(row)}\n")
    assert (clip.path, clip.label) == ("a/é.wav", "dog") and not clip.is_segment
    assert clip.group == ("ann" if "as group" in told else None) and clip.fold == (
        3 if "fold" in header else None
    )
    assert told in capsys.readouterr().err


def test_nothing_is_said_of_our_own_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(folder, "path,label,fold,group\na/é.wav,dog,1,g\n")
    assert capsys.readouterr().err == ""


def test_columns_named_by_options(folder: Path) -> None:
    text = "path,where,label,what,who\nx,a/é.wav,1,dog,ann\n"
    clips = read(folder, text, path_column="where", label_column="what", group_column="who")
    assert clips == [Clip("a/é.wav", "dog", group="ann")]
    with pytest.raises(
        UsageError, match="--group-column must be a column of .*labels.csv, got 'owner': it has path, where"
    ):
        read(folder, text, group_column="owner")
    with pytest.raises(UsageError, match="--label-column names a column of a table: give --labels CSV too"):
        discover(folder, BuildOptions(label_column="what"))


@pytest.mark.parametrize(
    ("name", "split"),
    [("Training", "train"), ("valid", "val"), ("validation", "val"), ("dev", "val"), ("TESTING", "test")],
)
def test_names_of_splits(folder: Path, name: str, split: str) -> None:
    assert read(folder, f"path,label,split\na/é.wav,dog,{name}\n")[0].split == split


@pytest.mark.parametrize("fold", ["3", "3.0", "03", "fold3", "Fold 3", " 3 "])
def test_numbers_of_folds(folder: Path, fold: str) -> None:
    assert read(folder, f"path,label,fold\na/é.wav,dog,{fold}\n")[0].fold == 3


def test_files_are_found_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids without a suffix, names without their folder, another way to write é, Windows' separators."""
    audio = touch(
        tmp_path / "audio",
        "deep/one.5.ogg",
        "deep/two.wav",
        "cafe\u0301.wav",
        "deep/x/three.wav",
        "dog/1.wav",
        "cat/1.wav",
    )
    (audio / "deep" / "one.txt").touch()
    clips = read(
        audio, "id,class\none.5,dog\ntwo.wav,cat\ncaf\u00e9.wav,cat\nx\\three.wav,dog\n1.wav,dog\n 1 ,cat\n"
    )
    assert [clip.path for clip in clips] == [
        "cafe\u0301.wav", "cat/1.wav", "deep/one.5.ogg", "deep/two.wav", "deep/x/three.wav", "dog/1.wav"
    ]  # fmt: skip
    assert [clip.label for clip in clips] == ["cat", "cat", "dog", "cat", "dog", "dog"]
    assert "6 files were found by their names" in capsys.readouterr().err


def test_urbansound8k(tmp_path: Path) -> None:
    """Its folds are folders, `start` and `end` are times in the recordings that the files were cut from."""
    audio = touch(tmp_path / "audio", *(f"fold{k}/{k}-3-0-{i}.wav" for k in range(1, 11) for i in range(2)))
    touch(audio, "fold10/same.wav", "fold2/same.wav")
    with pytest.raises(
        UsageError, match="the folders fold1, fold10, fold2, fold3, ... with the files are folds, not classes"
    ):
        discover(audio)
    rows = [
        f"{k}-3-0-{i}.wav,{k},90.5,94.5,1,{k},{i},{'dog' if i else 'drill'}"
        for k in range(1, 11)
        for i in range(2)
    ]
    rows += [f"same.wav,7,0,4,1,{k},0,drill" for k in (2, 10)]
    text = "\n".join(["slice_file_name,fsID,start,end,salience,fold,classID,class", *rows])
    clips = read(audio, text)
    assert len(clips) == 22 and Clip("fold10/10-3-0-1.wav", "dog", fold=10) in clips
    assert (
        Clip("fold2/same.wav", "drill", fold=2) in clips
        and Clip("fold10/same.wav", "drill", fold=10) in clips
    )
    by_name = discover(audio, BuildOptions(label_from=r"(?:-|sam)([01e])\.wav$"))
    assert Clip("fold10/10-3-0-1.wav", "1", fold=10) in by_name and {clip.fold for clip in by_name} == set(
        range(1, 11)
    )


def test_rows_of_files_that_do_not_exist_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = read(folder, "path,label\nb/none.wav,a\nb/x y.wav,b\n")
    assert [clip.path for clip in clips] == ["b/none.wav", "b/x y.wav"]
    assert "1 of 2 files do not exist" in capsys.readouterr().err


def test_segments(folder: Path) -> None:
    clips = read(
        folder, "path,label,start,end\nb/x y.wav,a,2.5,\nb/x y.wav,b,.5,2\nb/x y.wav,c,,5e-1\na/é.wav,d,,\n"
    )
    assert clips == [
        Clip("a/é.wav", "d"),
        Clip("b/x y.wav", "c", end=0.5),
        Clip("b/x y.wav", "b", start=0.5, end=2.0),
        Clip("b/x y.wav", "a", start=2.5),
    ]
    assert len({clip.effective_group for clip in clips}) == 2
    assert [clip.name for clip in clips][1:] == [
        "b/x y.wav (0 s to 0.5 s)",
        "b/x y.wav (0.5 s to 2 s)",
        "b/x y.wav (2.5 s to its end)",
    ]


def test_parquet_says_the_same(folder: Path) -> None:
    import pandas

    rows = {
        "path": ["a/é.wav", "a/x y.wav", "b/x y.wav"],
        "label": ["NA", "01", None],
        "fold": [1, 2, 3],
        "group": [1.0, 2.0, None],
    }
    pandas.DataFrame(rows).to_parquet(folder.parent / "labels.parquet")
    clips = csv_labels.read(folder, folder.parent / "labels.parquet")
    assert clips == [
        Clip("a/x y.wav", "01", 2, "2"),
        Clip("a/é.wav", "NA", 1, "1"),
        Clip("b/x y.wav", None, 3),
    ]
    rows["fold"][2] = 10_000
    pandas.DataFrame(rows).to_parquet(folder.parent / "labels.parquet")
    with pytest.raises(UsageError, match="labels.parquet row 3: fold must be a whole number from 0 to 9999"):
        csv_labels.read(folder, folder.parent / "labels.parquet")
