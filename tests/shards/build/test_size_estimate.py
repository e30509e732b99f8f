"""The summary of a build: estimates against what is built, numbers that the clips decide, and warnings."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.common.errors import UsageError
from shardwave.preprocess.auto_config import AutoConfig, preset_values
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build import preparation, size_estimate, survey
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.preview import preview
from shardwave.shards.clip import Clip
from shardwave.shards.sources import discover
from tests.shards.conftest import labelled

OPTIONS = BuildOptions(workers=1, min_shards=1, val_fraction=0.25)


def sounds(folder: Path, lengths: list[float], rate: int = 8_000, suffix: str = "wav") -> Path:
    """Noise of these seconds in two classes."""
    rng = np.random.default_rng(0)
    for i, seconds in enumerate(lengths):
        path = folder / "ab"[i % 2] / f"clip {i:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, max(1, round(seconds * rate))), rate)
    return folder


def summed(
    audio: Path, config: SpectrogramConfig | AutoConfig, options: BuildOptions = OPTIONS
) -> tuple[size_estimate.Summary, list[str]]:
    """The summary of a build, and its warnings where 1 MB is free."""
    inputs = preparation.find_inputs(audio, config, options)
    planned = preparation.make_plan(inputs, options, "numba", "cpu")
    made = size_estimate.summarize(planned, inputs.survey, inputs.config, inputs.chosen)
    return made, size_estimate.warnings(
        made, 1_000_000, size_estimate.smaller(planned, inputs.survey, inputs.config)
    )


WORDS = [0.3 + 0.05 * i for i in range(16)]
SONGS = [2.0, 5.5, 3.1, 8.0, 2.0, 4.4, 7.9, 6.5]
FOLDERS = {
    "short words": (WORDS, 8_000, "wav", AutoConfig(preset_values("speech"))),
    "slices of a length": (
        SONGS,
        22_050,
        "mp3",
        AutoConfig({"slice_seconds": 1.5, "slice_overlap": 0.5, "image_size": 64}),
    ),
    "ten slices and features": (SONGS, 44_100, "flac", AutoConfig({"image_size": 128, "features": True})),
    "padded": (SONGS, 16_000, "ogg", AutoConfig({"image_size": 256, "fit": "pad", "slices": 6})),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_estimate_is_within_ten_per_cent_of_what_is_built(name: str, tmp_path: Path) -> None:
    lengths, rate, suffix, config = FOLDERS[name]
    audio = sounds(tmp_path / "audio", lengths, rate, suffix)
    made, _ = preview(audio, tmp_path / "set", config, OPTIONS)
    assert not (tmp_path / "set").exists() and made.seconds is not None and made.seconds > 0
    manifest = build(audio, tmp_path / "set", config, OPTIONS)
    files = [path for path in (tmp_path / "set").iterdir() if path.suffix in (".tar", ".index", ".idx")]
    assert made.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.05)
    assert made.shards == len(files) / 3
    built = {
        view: sum(entry["samples"] for views in manifest["splits"].values() for entry in views.get(view, ()))
        for view in ("full", "slice")
    }
    assert made.images == built
    assert manifest["config"] == dataclasses.asdict(made.config)
    assert made.audio_seconds == pytest.approx(manifest["audio_seconds"], rel=0.01)
    assert made.audio_bytes == sum(path.stat().st_size for path in audio.rglob("*.*"))
    for view, seconds in manifest["unused_seconds"].items():
        assert made.unused_seconds[view] == pytest.approx(seconds, abs=0.1)


def test_unused_seconds_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = sounds(tmp_path / "audio", [1.0, 1.0, 1.7, 2.5, 0.2, 1.0])
    config = SpectrogramConfig(
        sample_rate=8_000, n_fft=256, hop_length=80, image_size=16, slices=0, slice_seconds=1.0
    )
    manifest = build(audio, tmp_path / "sliced", config, OPTIONS)
    assert manifest["unused_seconds"] == {"full": 0.0, "slice": pytest.approx(0.7 + 0.5)}
    assert "1.2 s of audio (16 %), at the ends of clips, are in no slice" in capsys.readouterr().err
    config = dataclasses.replace(config, slice_seconds=None, fit="crop", fit_seconds=0.8)
    manifest = build(audio, tmp_path / "cropped", config, OPTIONS)
    assert manifest["unused_seconds"] == {"full": pytest.approx(3 * 0.2 + 0.9 + 1.7), "slice": 0.0}
    assert (
        "3.2 s of audio (43 %), at the ends of clips, are in no image of a whole clip"
        in capsys.readouterr().err
    )


def test_the_same_inputs_choose_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = sounds(tmp_path / "audio", [1.2] * 7 + [4.0])
    config = AutoConfig({"image_size": 16})
    manifest = build(audio, tmp_path / "set", config, OPTIONS)
    assert (manifest["config"]["sample_rate"], manifest["config"]["slices"]) == (8_000, 2)
    assert manifest["options"]["slices"] == 2
    assert "chosen by the clips: sample rate 8,000 Hz, 2 slices\n" in capsys.readouterr().err
    again = dataclasses.replace(OPTIONS, workers=3)
    assert build(audio, tmp_path / "set", config, again) == manifest
    assert "nothing to do" in capsys.readouterr().err
    for path in audio.rglob("*.wav"):
        soundfile.write(path, np.ones(44_100) * 0.1, 22_050)
    with pytest.raises(UsageError, match=r"sample_rate 8000 -> 22050; slices 2 -> 4.*other content"):
        build(audio, tmp_path / "set", config, again)


def test_a_large_folder_is_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = sounds(tmp_path / "audio", [0.5 + 0.01 * i for i in range(60)])
    monkeypatch.setattr(survey, "MAX_HEADERS", 20)
    clips = discover(audio)
    found = survey.read(audio, clips)
    assert (
        len(found.rows) == 20
        and found.rows[0] == 0
        and found.rows[-1] == 59
        and np.diff(found.rows).max() <= 4
    )
    assert (survey.read(audio, clips).rows == found.rows).all() and not found.complete
    assert survey.read(audio, clips, complete=True).complete
    made, _ = summed(audio, AutoConfig({"image_size": 16}))
    assert (made.clips, made.headers, made.images["full"]) == (60, 20, 60)
    text = "\n".join(size_estimate.describe(made))
    assert "by the headers of 20 of them" in text and "about" in text
    exact, _ = summed(audio, AutoConfig({"image_size": 16, "slice_seconds": 0.2}))
    assert exact.headers == 60  # how many slices there are depends on every clip


def test_what_has_no_header_is_counted_and_nothing_waits(tmp_path: Path) -> None:
    audio = sounds(tmp_path / "audio", [1.0] * 6)
    (audio / "a" / "empty.wav").touch()
    (audio / "a" / "text.mp3").write_text("no audio")
    (audio / "b" / "folder.wav").mkdir()
    os.mkfifo(audio / "a" / "pipe")
    clips = [
        Clip(f"a/{name}", "a") for name in ("clip 000.wav", "empty.wav", "text.mp3", "pipe", "missing.wav")
    ]
    found = survey.read(audio, [*clips, Clip("b/folder.wav", "b")])
    assert found.readable.tolist() == [True, False, False, False, False, False]
    made, _ = summed(audio, AutoConfig({}))
    assert made.unreadable == 2 and made.images["full"] == made.clips - 2
    assert "headers   2 of" in "\n".join(size_estimate.describe(made))


def test_nothing_readable_has_defaults(tmp_path: Path) -> None:
    for name in ("a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"):
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "audio" / name).touch()
    made, lines = preview(tmp_path / "audio", tmp_path / "set", AutoConfig({"fit": "crop"}), OPTIONS)
    assert (made.config.sample_rate, made.config.slices, made.lengths, made.seconds) == (
        22_050,
        10,
        None,
        None,
    )
    assert made.images == {"full": 0, "slice": 0} and "4 of 4 are unreadable" in "\n".join(lines)


@pytest.mark.parametrize(
    ("lengths", "rate", "values", "words"),
    [
        (
            [1.0] * 4,
            8_000,
            {"sample_rate": 22_050},
            ["8,000 Hz or less", "64 % of each image is black", "--sample-rate auto"],
        ),
        (
            [1.0] * 4,
            8_000,
            {"slices": 10},
            ["slices of 0.1 s are shorter than a window (0.256 s)", "--slices auto"],
        ),
        ([2.0] * 4, 8_000, {"slices": 6}, ["slices of 0.34 s are shorter than 0.5 s", "--slices auto"]),
        ([0.2] * 4, 8_000, {}, ["half of the clips are shorter than a window of 0.256 s", "--n-fft"]),
        (
            [0.2, 0.3, 3.0, 20.0],
            8_000,
            {"slices": 0},
            ["clips of 0.2 to 20 s", "--slice-seconds", "--fit crop"],
        ),
        ([1.0] * 4, 8_000, {"slices": 0}, ["1.06 MB", "1 MB are free", "--out"]),
    ],
)
def test_warnings_name_the_option_that_helps(
    tmp_path: Path, lengths: list[float], rate: int, values: dict[str, int], words: list[str]
) -> None:
    _, told = summed(sounds(tmp_path / "audio", lengths, rate), AutoConfig(values))
    line = next(line for line in told if words[0] in line)
    assert line.startswith("warning: ") and all(word in line for word in words)


def test_nothing_is_warned_of_where_all_is_well(tmp_path: Path) -> None:
    assert summed(sounds(tmp_path / "audio", [5.0] * 4, 22_050), AutoConfig({"image_size": 64}))[1] == []


def test_a_set_much_larger_than_its_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_estimate, "LARGE", 1e6)
    audio = sounds(tmp_path / "audio", [5.0] * 4)
    made, told = summed(audio, AutoConfig({}))
    line = next(line for line in told if "as large as the audio" in line)
    small, _ = summed(audio, AutoConfig({"slices": 0, "image_size": 128}))
    assert f"{made.bytes / made.audio_bytes:.2g} times as large" in line and "--slices 0 (1.06 MB)" in line
    assert f"--slices 0 --image-size 128 ({small.bytes / 1e3:.3g} kB)" in line
    assert not [
        line for line in summed(audio, AutoConfig({"slices": 0, "image_size": 64}))[1] if "as large" in line
    ]


def test_a_dry_run_refuses_what_the_build_would(tmp_path: Path) -> None:
    audio = sounds(tmp_path / "audio", [1.0] * 4)
    with pytest.raises(UsageError, match="not there.wav"):
        preview(
            audio, tmp_path / "set", AutoConfig({}), BuildOptions(labels=labelled(audio, ["not there.wav,x"]))
        )
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something else"):
        preview(audio, tmp_path / "set", AutoConfig({}), OPTIONS)


def test_json_of_the_summary(tmp_path: Path) -> None:
    made, _ = preview(
        sounds(tmp_path / "audio", [1.0] * 4), tmp_path / "set", AutoConfig({"image_size": 16}), OPTIONS
    )
    found = json.loads(json.dumps(dataclasses.asdict(made)))
    assert found["clips"] == 4 and found["rates"] == {"8000": 4} and found["config"]["sample_rate"] == 8_000
