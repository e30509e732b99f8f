"""Predictions and scores of a kept checkpoint on audio and on shard sets."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.config import defaults
from models.evaluate import evaluate
from models.predict import predict
from models.train import train
from preprocess.config import SpectrogramConfig
from preprocess.errors import ShardwaveError, TooManyBadInputs, UsageError
from shards.build import build
from shards.build_options import BuildOptions

RATE = 22_050


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of one second: low and high tones in noise."""
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for label, pitch in (("high tone", 4000.0), ("low", 300.0)):
        (folder / label).mkdir()
        for number in range(8):
            time = np.arange(RATE) / RATE
            samples = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * time) + 0.02 * rng.normal(size=RATE)
            soundfile.write(folder / label / f"clip {number}.wav", samples, RATE)
    return folder


@pytest.fixture(scope="module")
def run(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained run and its shard set."""
    folder = tmp_path_factory.mktemp("run")
    config = SpectrogramConfig(image_size=32, frequency_scale="mel", slices=2, fit="crop", fit_seconds=0.8)
    build(audio, folder / "set", config, BuildOptions(val_fraction=0.25, engine="torch", device="cpu", workers=1))
    options = {"epochs": 6, "batch_size": 4, "hidden_size": 16, "conv1_kernel": 3, "conv2_kernel": 3, "device": "cpu"}
    train(folder / "set", defaults("cnn", **options), folder / "run")
    return folder / "run", folder / "set"


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_audio_in_any_folder_is_predicted_as_its_shards_are(audio: Path, run: tuple[Path, Path], tmp_path: Path) -> None:
    flat = tmp_path / "unlabelled"
    flat.mkdir()
    for path in audio.rglob("*.wav"):
        shutil.copy(path, flat / f"{path.parent.name}, {path.name}")
    predict(run[0], flat, tmp_path / "audio.csv", probabilities=True, device="cpu", workers=1)
    predict(run[0], run[1], tmp_path / "set.csv", probabilities=True, device="cpu")
    by_audio, by_set = read(tmp_path / "audio.csv"), read(tmp_path / "set.csv")
    assert [row["id"] for row in by_set] == sorted(str(path.relative_to(audio)) for path in audio.rglob("*.wav"))
    assert [row["id"].replace("/", ", ") for row in by_set] == [row["id"] for row in by_audio]
    assert list(by_audio[0]) == ["id", "class", "high tone", "low"]
    for one, other in zip(by_audio, by_set, strict=True):
        assert one["class"] == other["class"] == ("high tone" if float(one["high tone"]) > 0.5 else "low")
        assert float(one["low"]) == pytest.approx(float(other["low"]), abs=1e-4)
    assert np.mean([row["id"].startswith(row["class"]) for row in by_audio]) > 0.8


def test_evaluate_counts_each_partition_and_agrees_with_the_training(run: tuple[Path, Path]) -> None:
    from models import result

    scored, trained = evaluate(run[0], run[1], device="cpu"), result.read(run[0])
    for name in ("val_whole_accuracy", "val_slice_mean_f1"):
        assert scored["scores"][name] == trained["scores"][name]
    assert sum(map(sum, scored["confusion"]["all_whole"])) == 16
    assert list(evaluate(run[0], run[1], ("val",), device="cpu")["confusion"]) == ["val_whole", "val_slice_mean"]


def test_bad_files_are_left_out_and_too_many_are_an_error(audio: Path, run: tuple[Path, Path], tmp_path: Path) -> None:
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


def test_one_file_and_a_folder_of_nothing_usable(audio: Path, run: tuple[Path, Path], tmp_path: Path) -> None:
    assert predict(run[0], audio / "low" / "clip 3.wav", tmp_path / "new" / "one.csv", device="cpu", workers=1)["clips"] == 1
    assert [row["id"] for row in read(tmp_path / "new" / "one.csv")] == ["clip 3.wav"]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("no audio")
    with pytest.raises(UsageError, match="no audio files in"):
        predict(run[0], folder, tmp_path / "out.csv", device="cpu", workers=1)
    (folder / "broken.wav").write_bytes(b"RIFF and then nothing of use")
    with pytest.raises(ShardwaveError, match="none of the 1 clips is usable audio"):
        predict(run[0], folder, tmp_path / "out.csv", device="cpu", workers=1)


def test_what_does_not_fit_is_refused(audio: Path, run: tuple[Path, Path], make_set: Callable[..., Path], tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", ["train", "val"], clips=2)
    with pytest.raises(UsageError, match=r"fingerprints differ: .* \(features False there, True here\)"):
        evaluate(run[0], other)
    with pytest.raises(UsageError, match="fingerprints differ"):
        predict(run[0], other, tmp_path / "out.csv")
    three = tmp_path / "three"
    shutil.copytree(audio, three / "audio")
    shutil.copytree(audio / "low", three / "audio" / "middle")
    config = SpectrogramConfig(image_size=32, frequency_scale="mel", slices=2, fit="crop", fit_seconds=0.8)
    build(three / "audio", three / "set", config, BuildOptions(val_fraction=0.25, engine="torch", device="cpu", workers=1))
    with pytest.raises(
        UsageError, match=r"classes differ: the run knows 2 \(high tone, low\), .* has 3 \(high tone, low, middle\)"
    ):
        evaluate(run[0], three / "set")
    with pytest.raises(UsageError, match="does not exist"):
        predict(run[0], tmp_path / "nowhere", tmp_path / "out.csv")
    with pytest.raises(UsageError, match="has no checkpoint.ckpt"):
        predict(tmp_path, run[1], tmp_path / "out.csv")


def test_damaged_and_foreign_checkpoints_are_one_clear_line(run: tuple[Path, Path], tmp_path: Path) -> None:
    from models import checkpoint

    broken = tmp_path / "checkpoint.ckpt"
    content = (run[0] / "checkpoint.ckpt").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ShardwaveError, match="is damaged, or no checkpoint"):
        predict(tmp_path, run[1], tmp_path / "out.csv")
    torch.save({"state_dict": {}}, broken)
    with pytest.raises(ShardwaveError, match="not a checkpoint of this program's models"):
        evaluate(tmp_path, run[1])
    with pytest.raises(UsageError, match="is a checkpoint of model cnn, not of mlp"):
        checkpoint.load(run[0] / "checkpoint.ckpt", model="mlp")
    changed = torch.load(run[0] / "checkpoint.ckpt", weights_only=True)
    changed["config"]["hidden_size"] = 99
    torch.save(changed, broken)
    with pytest.raises(ShardwaveError, match="does not fit its model cnn"):
        evaluate(tmp_path, run[1])
