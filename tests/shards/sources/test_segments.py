"""Rows of a label file that label segments of files, which are decoded, stored and described as clips."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.common.errors import BadAudio, UsageError
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.engines.base import Segment
from shardwave.preprocess.engines.registry import make_engine
from shardwave.shards import quarantine
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.clip import clip_of_sample
from shardwave.shards.format.verify import verify
from shardwave.shards.inspect import compare_audio, figures, lookup, summary
from shardwave.shards.read.open_set import open_set
from tests.shards.conftest import CONFIG, RATE, labelled

OPTIONS = BuildOptions(
    engine="reference", device="cpu", workers=1, min_shards=1, val_fraction=0.0, max_bad_fraction=1.0
)
ROWS = [
    (0.0, 0.5),
    (0.5, 1.25),
    (1.25, None),
    (None, 0.75),
    (1.3, 2.05),
    (1.95, 3.0),
    (2.0, 2.1),
    (9.0, 9.5),
]  # seconds
GOOD = ROWS[:5]  # the file has 2 s


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Two files of 2 s: noise whose pitch rises."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    for name in ("one.wav", "two.flac"):
        time = np.arange(2 * RATE) / RATE
        samples = 0.4 * np.sin(2 * np.pi * (200 + 700 * time) * time) + 0.05 * rng.standard_normal(len(time))
        soundfile.write(tmp_path / "audio" / name, samples, RATE, subtype="PCM_16")
    return tmp_path / "audio"


def labels(audio: Path) -> Path:
    rows = [
        f"one.wav,{'ab'[i % 2]},{'' if a is None else a},{'' if b is None else b}"
        for i, (a, b) in enumerate(ROWS)
    ]
    return labelled(audio, [*rows, "two.flac,b,,"], "path,label,start,end")


@pytest.mark.parametrize("name", ["one.wav", "two.flac"])
def test_decode(audio: Path, name: str) -> None:
    whole = decode(audio / name, RATE).samples
    for start, end in GOOD:
        first, last = round((start or 0) * RATE), min(round((end or 2) * RATE), 2 * RATE)
        for integers in (False, True):
            part = decode(audio / name, RATE, start=start, end=end, integers=integers).samples
            assert len(part) == last - first and (integers or np.array_equal(part, whole[first:last]))
    for start, end, told in (
        (2.0, 2.1, "the segment begins at 2 s, the file ends at 2 s"),
        (9.0, None, "the segment begins at 9 s, the file ends at 2 s"),
        (1.95, 3.0, "the segment ends at 3 s, the file at 2 s"),
        (None, 2.11, "the segment ends at 2.11 s, the file at 2 s"),
        (1.0, 1.00001, "shorter than a sample"),
    ):
        with pytest.raises(BadAudio, match=told):
            decode(audio / name, RATE, start=start, end=end)
    with pytest.raises(BadAudio, match="^the file does not exist$"):
        decode(audio / "none.wav", RATE)


@pytest.mark.parametrize("engine", ["reference", "numba", "dali"])
def test_every_engine_takes_segments(audio: Path, tmp_path: Path, engine: str) -> None:
    """As it takes a file that holds the segment alone."""
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    samples, _ = soundfile.read(audio / "one.wav", dtype="int16")
    soundfile.write(tmp_path / "part.wav", samples[4_000:10_000], RATE, subtype="PCM_16")
    sources = [
        Segment(audio / "one.wav", 0.5, 1.25),
        tmp_path / "part.wav",
        Segment(audio / "one.wav", 5.0, None),
        audio / "one.wav",
    ]
    (_, part), (_, file), (_, bad), (_, whole) = make_engine(engine, "cpu", CONFIG).stream(sources)
    assert (
        not isinstance(part, BadAudio) and not isinstance(file, BadAudio) and not isinstance(whole, BadAudio)
    )
    assert np.array_equal(part.full, file.full) and np.array_equal(part.slices, file.slices)
    assert part.samples == 6_000 and whole.samples == 16_000 and isinstance(bad, BadAudio)


@pytest.mark.parametrize("url", [False, True])
def test_a_set_of_segments(
    audio: Path, tmp_path: Path, url: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    options = BuildOptions(**{**vars(OPTIONS), "labels": labels(audio)})
    place = f"file://{audio}" if url else audio
    made = build(place, tmp_path / "set", CONFIG, options)
    assert (
        made["clips"] == len(GOOD) + 1 and verify(open_set(tmp_path / "set"))["samples"] == 4 * made["clips"]
    )
    opened = open_set(tmp_path / "set")
    full, slices = opened.view("train"), opened.view("train", "slice")
    metas = {
        clip_of_sample(full.meta(row)).identity[1:]: full.meta(row)
        for row in range(len(full))
        if full.meta(row)["path"] == "one.wav"
    }
    assert sorted(metas) == sorted((start or 0.0, np.inf if end is None else end) for start, end in GOOD)
    for (start, end), meta in metas.items():
        assert meta["start"] == start and meta["length"] == pytest.approx(min(end, 2.0) - start)
        assert meta["segment"] == [start, None if end == np.inf else end] and meta["group"] is None
    (whole,) = (full.meta(row) for row in range(len(full)) if full.meta(row)["path"] == "two.flac")
    assert whole["start"] == 0 and whole["length"] == 2 and "segment" not in whole
    for row in range(len(slices)):  # where they lie in the file
        meta = slices.meta(row)
        start, end = meta.get("segment") or (0.0, 2.0)
        assert start <= meta["start"] < meta["start"] + meta["length"] <= (end or 2.0) + 0.1
    first, last = (
        [
            slices.meta(row)["start"]
            for row in range(len(slices))
            if slices.meta(row).get("segment") == [1.25, None]
        ][i]
        for i in (0, -1)
    )
    assert first == 1.25 < last
    assert quarantine.quarantined(tmp_path / "set") == [
        {"path": "one.wav", "start": 1.95, "end": 3.0, "reason": "the segment ends at 3 s, the file at 2 s"},
        {
            "path": "one.wav",
            "start": 2.0,
            "end": 2.1,
            "reason": "the segment begins at 2 s, the file ends at 2 s",
        },
        {
            "path": "one.wav",
            "start": 9.0,
            "end": 9.5,
            "reason": "the segment begins at 9 s, the file ends at 2 s",
        },
    ]
    assert "one.wav (9 s to 9.5 s): the segment begins" in summary.describe(summary.summary(tmp_path / "set"))
    capsys.readouterr()
    build(place, tmp_path / "set", CONFIG, options)
    assert "is finished already" in capsys.readouterr().err


def test_one_clip_of_many_of_a_file_is_found(audio: Path, tmp_path: Path) -> None:
    build(audio, tmp_path / "set", CONFIG, BuildOptions(**{**vars(OPTIONS), "labels": labels(audio)}))
    opened = open_set(tmp_path / "set")
    with pytest.raises(
        UsageError, match=r"one.wav has 5 segments; give the key of one: 0000\d\d_one for one.wav \(\d"
    ):
        lookup.find(opened, "one.wav")
    view, row = lookup.find(opened, "two.flac")
    assert view.meta(row)["path"] == "two.flac"
    view = opened.view("train")
    key = next(view.key(row) for row in range(len(view)) if view.meta(row).get("segment") == [0.5, 1.25])
    assert figures.draw_sample(tmp_path / "set", f"{key}_s001", tmp_path / "one.png")["start"] == 0.5
    found = compare_audio.compare(tmp_path / "set", audio)
    assert (
        found["verdict"] == "identical"
        and found["clips"] == len(GOOD) + 1
        and found["samples"] == 4 * found["clips"]
    )


def test_changes_of_a_file_with_several_clips(audio: Path, tmp_path: Path) -> None:
    options = BuildOptions(**{**vars(OPTIONS), "labels": labels(audio)})
    build(audio, tmp_path / "set", CONFIG, options)
    made = (tmp_path / "set" / "manifest.json").read_bytes()
    os.utime(audio / "one.wav", ns=(1, 1))  # the same content
    build(audio, tmp_path / "set", CONFIG, options)
    assert (tmp_path / "set" / "manifest.json").read_bytes() == made
    text = options.labels.read_text()  # type: ignore[union-attr]
    for old, new, told in (
        (
            "one.wav,b,0.5,1.25",
            "one.wav,b,0.5,1.5",
            r"1 clip added \(one.wav \(0.5 s to 1.5 s\)\); 1 clip removed",
        ),
        (
            "one.wav,b,0.5,1.25",
            "one.wav,a,0.5,1.25",
            r"1 clip with another label, group, fold or split \(one.wav \(0.5 s",
        ),
        ("one.wav,b,0.5,1.25\n", "", r"1 clip removed \(one.wav \(0.5 s to 1.25 s\)\)"),
    ):
        Path(str(options.labels)).write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=told):
            build(audio, tmp_path / "set", CONFIG, options)
    Path(str(options.labels)).write_text(text)
    data = bytearray((audio / "one.wav").read_bytes())
    data[-1] ^= 1
    (audio / "one.wav").write_bytes(data)
    with pytest.raises(UsageError, match="8 clips with other content"):
        build(audio, tmp_path / "set", CONFIG, options)


def test_segments_of_a_file_are_never_split(tmp_path: Path) -> None:
    """Without a group column the file is the group."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    for i in range(10):
        soundfile.write(tmp_path / "audio" / f"{i}.wav", rng.standard_normal(RATE) / 9, RATE)
    rows = [f"{i},{'ab'[i % 2]},{k / 4},{(k + 1) / 4}" for i in range(10) for k in range(4)]
    options = BuildOptions(
        **{
            **vars(OPTIONS),
            "labels": labelled(tmp_path / "audio", rows, "id,class,start,end"),
            "val_fraction": 0.2,
        }
    )
    build(tmp_path / "audio", tmp_path / "set", CONFIG, options)
    views = [open_set(tmp_path / "set").view(split) for split in ("train", "val")]
    files = [{view.meta(i)["path"] for i in range(len(view))} for view in views]
    assert [len(view) for view in views] == [32, 8] and not files[0] & files[1]


def test_files_that_do_not_exist_are_quarantined(audio: Path, tmp_path: Path) -> None:
    rows = ["one.wav,a", "two.flac,b", "three.wav,b"]
    build(audio, tmp_path / "set", CONFIG, BuildOptions(**{**vars(OPTIONS), "labels": labelled(audio, rows)}))
    (line,) = (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line) == {"path": "three.wav", "reason": "the file does not exist"}
