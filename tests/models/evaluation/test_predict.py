"""Predictions and scores of a kept checkpoint on audio and on shard sets."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from shardwave.common.errors import ShardwaveError, TooManyBadInputs, UsageError
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.evaluation.predict import predict
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions

RATE = 22_050

CONFIG = SpectrogramConfig(image_size=32, frequency_scale="mel", slices=2, fit="crop", fit_seconds=0.8)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of one second: low and high tones in noise."""
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for label, pitch in (("high tone", 4000.0), ("low", 300.0)):
        (folder / label).mkdir()
        for number in range(8):
            time = np.arange(RATE) / RATE
            samples = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * time) + 0.02 * rng.normal(
                size=RATE
            )
            soundfile.write(folder / label / f"clip {number}.wav", samples, RATE)
    return folder


@pytest.fixture(scope="module")
def run(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained run and its shard set."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG
    build(
        audio,
        folder / "set",
        config,
        BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1),
    )
    options = {
        "epochs": 6,
        "batch_size": 4,
        "hidden_size": 16,
        "conv1_kernel": 3,
        "conv2_kernel": 3,
        "device": "cpu",
    }
    train(folder / "set", defaults("cnn", **options), folder / "run")
    return folder / "run", folder / "set"


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_audio_in_any_folder_is_predicted_as_its_shards_are(
    audio: Path, run: tuple[Path, Path], tmp_path: Path
) -> None:
    flat = tmp_path / "unlabelled"
    flat.mkdir()
    for path in audio.rglob("*.wav"):
        shutil.copy(path, flat / f"{path.parent.name}, {path.name}")
    predict(run[0], flat, tmp_path / "audio.csv", probabilities=True, device="cpu", workers=1)
    predict(run[0], run[1], tmp_path / "set.csv", probabilities=True, device="cpu")
    by_audio, by_set = read(tmp_path / "audio.csv"), read(tmp_path / "set.csv")
    assert [row["path"] for row in by_set] == sorted(
        str(path.relative_to(audio)) for path in audio.rglob("*.wav")
    )
    assert [row["path"].replace("/", ", ") for row in by_set] == [row["id"] for row in by_audio]
    assert list(by_set[0]) == ["path", "split", "label", "class", "probability", "high tone", "low"]
    assert list(by_audio[0]) == ["id", "class", "high tone", "low"]
    for one, other in zip(by_audio, by_set, strict=True):
        assert one["class"] == other["class"] == ("high tone" if float(one["high tone"]) > 0.5 else "low")
        assert float(one["low"]) == pytest.approx(float(other["low"]), abs=1e-4)
    assert np.mean([row["id"].startswith(row["class"]) for row in by_audio]) > 0.8


def test_evaluate_names_the_kind_of_each_split_and_omits_the_total_of_mixed_kinds(
    run: tuple[Path, Path],
) -> None:
    from shardwave.models.runs import result

    scored, trained = evaluate(run[0], run[1], device="cpu"), result.read(run[0])
    for name in ("val_full_accuracy", "val_slice_mean_f1"):
        assert scored["scores"][name] == trained["scores"][name]
    assert scored["splits"] == {
        "train": {"kind": "trained", "clips": 12, "trained": 12},
        "val": {"kind": "validation", "clips": 4, "trained": 0},
    }
    assert not any(name.startswith("all_") for name in (*scored["scores"], *scored["confusion"]))
    assert list(evaluate(run[0], run[1], ("val",), device="cpu")["confusion"]) == [
        "val_full",
        "val_slice_mean",
    ]


def test_clips_that_were_trained_on_are_found_in_another_set_by_their_content(
    audio: Path, run: tuple[Path, Path], tmp_path: Path
) -> None:
    """Copies under other names, with other labels and splits, are known; clips in between are new."""
    from shardwave.shards.read.open_set import open_set

    view = open_set(run[1]).view("train")
    known = [view.meta(i)["path"] for i in range(len(view))][:3]
    rng = np.random.default_rng(7)
    rows = ["path,label,split"]
    (tmp_path / "audio").mkdir()
    for number, path in enumerate(known):
        shutil.copy(audio / path, tmp_path / "audio" / f"copy {number}.wav")
        rows.append(f"copy {number}.wav,{'low' if number else 'high tone'},test")
    for number in range(4):
        soundfile.write(tmp_path / "audio" / f"new {number}.wav", rng.normal(size=RATE) * 0.1, RATE)
        rows.append(
            f"new {number}.wav,{'low' if number % 2 else 'high tone'},{'test' if number < 2 else 'train'}"
        )
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    config = CONFIG
    options = {
        "val_fraction": 0.0,
        "engine": "numba",
        "device": "cpu",
        "workers": 1,
        "labels": tmp_path / "labels.csv",
    }
    build(tmp_path / "audio", tmp_path / "set", config, BuildOptions(**options))
    scored = evaluate(run[0], tmp_path / "set", device="cpu", errors=tmp_path / "errors.csv")
    assert scored["splits"] == {
        "train": {"kind": "new", "clips": 2, "trained": 0},
        "test": {"kind": "mixed", "clips": 5, "trained": 3},
    }
    assert not any(name.startswith("all_") for name in scored["scores"])
    assert not any(row["path"].startswith("copy") for row in read(tmp_path / "errors.csv"))
    run_alone = tmp_path / "alone"  # without its table of clips, a run cannot tell
    run_alone.mkdir()
    shutil.copy(run[0] / "checkpoint.ckpt", run_alone)
    about = evaluate(run_alone, tmp_path / "set", device="cpu")["splits"]
    assert about["test"] == {"kind": "unknown", "clips": 5, "trained": None}
    assert evaluate(run_alone, run[1], device="cpu")["splits"]["val"]["kind"] == "validation"


def test_splits_of_one_kind_have_a_total(run: tuple[Path, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for label in ("high tone", "low"):
        (tmp_path / "audio" / label).mkdir(parents=True)
        for number in range(4):
            soundfile.write(tmp_path / "audio" / label / f"{number}.wav", rng.normal(size=RATE) * 0.1, RATE)
    config = CONFIG
    build(
        tmp_path / "audio",
        tmp_path / "set",
        config,
        BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1),
    )
    scored = evaluate(run[0], tmp_path / "set", device="cpu")
    assert {about["kind"] for about in scored["splits"].values()} == {"new"}
    parts = [np.array(scored["confusion"][f"{name}_slice_mean"]) for name in ("train", "val")]
    assert np.array_equal(sum(parts), scored["confusion"]["all_slice_mean"]) and np.sum(parts) == 8
    wrong = read(run[0] / "errors-set.csv")
    assert len(wrong) == 8 - np.trace(sum(parts)) > 0
    assert list(wrong[0]) == ["path", "split", "label", "class", "probability", "probability_of_label"]
    assert [row["probability"] for row in wrong] == sorted(
        (row["probability"] for row in wrong), reverse=True
    )
    for row in wrong:
        assert row["class"] != row["label"] and float(row["probability"]) + float(
            row["probability_of_label"]
        ) == pytest.approx(1)


def test_one_split_of_a_set_is_predicted(run: tuple[Path, Path], tmp_path: Path) -> None:
    assert predict(run[0], run[1], tmp_path / "val.csv", device="cpu", splits=["val"])["clips"] == 4
    rows = read(tmp_path / "val.csv")
    assert list(rows[0]) == ["path", "split", "label", "class", "probability"] and {
        row["split"] for row in rows
    } == {"val"}
    for row in rows:
        assert row["path"].startswith(row["label"]) and 0.5 <= float(row["probability"]) <= 1
    assert (
        predict(run[0], run[1], tmp_path / "both.csv", device="cpu", splits=["val", "train"])["clips"] == 16
    )
    with pytest.raises(UsageError, match="no samples in split test; it has train, val"):
        predict(run[0], run[1], tmp_path / "test.csv", device="cpu", splits=["test"])


def test_a_cell_with_a_carriage_return_is_one_cell(tmp_path: Path) -> None:
    from shardwave.models.evaluation.clip_csv import write_csv

    cells = [["a\rb.wav", 'say "x", y'], [" c.wav", "two\nlines"]]
    write_csv(tmp_path / "out.csv", ("id", "class"), cells)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "class"], *cells]


def test_bad_files_have_no_rows_and_too_many_raise(
    audio: Path, run: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(audio / "low", folder)
    (folder / "broken.wav").write_bytes(b"RIFF and then nothing of use")
    found = predict(run[0], folder, tmp_path / "out.csv", device="cpu", workers=1, max_bad_fraction=0.5)
    assert [entry["path"] for entry in found["bad"]] == ["broken.wav"] and found["clips"] == 8
    assert list(read(tmp_path / "out.csv")[0]) == ["id", "class"]
    (tmp_path / "out.csv").unlink()
    with pytest.raises(TooManyBadInputs, match="1 of 9 files could not be read"):
        predict(run[0], folder, tmp_path / "out.csv", device="cpu", workers=1)
    assert len(read(tmp_path / "out.csv")) == 8


def test_a_single_file_and_a_folder_without_usable_files(
    audio: Path, run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "shardwave-scratch-abcd1234").mkdir(0o700)  # as a killed process leaves it
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert (
        predict(run[0], audio / "low" / "clip 3.wav", tmp_path / "new" / "one.csv", device="cpu", workers=1)[
            "clips"
        ]
        == 1
    )
    assert [row["id"] for row in read(tmp_path / "new" / "one.csv")] == ["clip 3.wav"]
    assert not list((tmp_path / "tmp").glob("shardwave-scratch-*"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("no audio")
    with pytest.raises(UsageError, match="no audio files in"):
        predict(run[0], folder, tmp_path / "out.csv", device="cpu", workers=1)
    (folder / "broken.wav").write_bytes(b"RIFF and then nothing of use")
    with pytest.raises(
        ShardwaveError, match="every clip was quarantined .1 of 1 in all., such as broken.wav"
    ):
        predict(run[0], folder, tmp_path / "out.csv", device="cpu", workers=1)


def test_inputs_that_do_not_fit_the_run_are_refused(
    audio: Path, run: tuple[Path, Path], make_set: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_set(tmp_path / "other", ["train", "val"], clips=2)
    with pytest.raises(
        UsageError,
        match="differ from those of the run: fit is crop .*; slices is 2 in the run, 3 in the set; build",
    ):
        evaluate(run[0], other)  # that it has features, too, is nothing to images
    with pytest.raises(UsageError, match="differ from those of the run"):
        predict(run[0], other, tmp_path / "out.csv")
    linear = SpectrogramConfig(image_size=16, slices=2)
    build(
        audio,
        tmp_path / "linear",
        linear,
        BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1),
    )
    with pytest.raises(
        UsageError,
        match="frequency_scale is mel in the run, linear in the set; image_size is 32 in the run, 16",
    ):
        evaluate(run[0], tmp_path / "linear")
    with pytest.raises(UsageError, match="--split val: .* is audio"):
        predict(run[0], audio, tmp_path / "out.csv", splits=["val"])
    featured = dataclasses.replace(CONFIG, features=True)
    build(
        audio,
        tmp_path / "featured",
        featured,
        BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1),
    )
    scored = evaluate(run[0], tmp_path / "featured", device="cpu")
    assert scored["splits"]["train"] == {
        "kind": "trained",
        "clips": 12,
        "trained": 12,
    }  # another set of the same clips
    three = tmp_path / "three"
    shutil.copytree(audio, three / "audio")
    shutil.copytree(audio / "low", three / "audio" / "middle")
    config = CONFIG
    build(
        three / "audio",
        three / "set",
        config,
        BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1),
    )
    with pytest.raises(
        UsageError,
        match=r"classes differ: the run has 2 \(high tone, low\), .* has 3 \(high tone, low, middle\)",
    ):
        evaluate(run[0], three / "set")
    with pytest.raises(UsageError, match="does not exist"):
        predict(run[0], tmp_path / "nowhere", tmp_path / "out.csv")
    with pytest.raises(UsageError, match="has no checkpoint.ckpt"):
        predict(tmp_path, run[1], tmp_path / "out.csv")


def test_damaged_and_foreign_checkpoints_raise_one_line(run: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tmp_path / "checkpoint.ckpt"
    content = (run[0] / "checkpoint.ckpt").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ShardwaveError, match="is damaged, or not a checkpoint"):
        predict(tmp_path, run[1], tmp_path / "out.csv")
    torch.save({"state_dict": {}}, broken)
    with pytest.raises(ShardwaveError, match="not a checkpoint of this program"):
        evaluate(tmp_path, run[1])
    changed = torch.load(run[0] / "checkpoint.ckpt", weights_only=True)
    changed["config"]["hidden_size"] = 99
    torch.save(changed, broken)
    with pytest.raises(ShardwaveError, match="does not fit its model cnn"):
        evaluate(tmp_path, run[1])


def test_each_segment_of_a_file_has_its_own_row(audio: Path, run: tuple[Path, Path], tmp_path: Path) -> None:
    """One file with a high and a low half: its path alone would name both rows."""
    halves = [soundfile.read(audio / label / "clip 0.wav")[0] for label in ("high tone", "low")]
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "both.wav", np.concatenate(halves), RATE)
    (tmp_path / "labels.csv").write_text("path,label,start,end\nboth.wav,,1,\nboth.wav,,0,1\n")
    config = CONFIG
    build(
        tmp_path / "audio", tmp_path / "set", config, BuildOptions(labels=tmp_path / "labels.csv", workers=1)
    )
    predict(run[0], tmp_path / "set", tmp_path / "out.csv", device="cpu")
    rows = [
        tuple(row[name] for name in ("path", "start", "end", "class")) for row in read(tmp_path / "out.csv")
    ]
    assert rows == [("both.wav", "0", "1", "high tone"), ("both.wav", "1", "", "low")]


def test_files_of_any_name_are_predicted(audio: Path, run: tuple[Path, Path], tmp_path: Path) -> None:
    """Names went through a CSV file that is stripped and split into lines."""
    names = (
        " leading.wav", "trailing .wav", "comma, \"quote\".wav", "new\nline.wav", "carriage\rreturn.wav",
        "-dash.wav", "u\u2028.wav", os.fsdecode(b"\xff.wav"),
    )  # fmt: skip
    folder = tmp_path / "any"
    folder.mkdir()
    for name in names:
        shutil.copy(audio / "low" / "clip 0.wav", folder / name)
    os.mkfifo(folder / "pipe.wav")
    made = predict(run[0], folder, tmp_path / "all.csv", device="cpu", workers=1, max_bad_fraction=1.0)
    assert made["clips"] == len(names) and made["bad"] == [
        {"path": "pipe.wav", "reason": "not a regular file"}
    ]
    with open(tmp_path / "all.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert sorted(row["id"] for row in csv.DictReader(file)) == sorted(names)
    assert (
        predict(str(run[0]), str(folder / names[0]), str(tmp_path / "one.csv"), device="cpu", workers=1)[
            "clips"
        ]
        == 1
    )
    assert [row["id"] for row in read(tmp_path / "one.csv")] == [names[0]]
    with pytest.raises(ShardwaveError, match="pipe.wav: not a regular file"):
        predict(run[0], folder / "pipe.wav", tmp_path / "pipe.csv", device="cpu", workers=1)
