"""Summaries and figures of small sets: counts, frequencies on the axes, and the comparison with the audio."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.common.errors import TooManyBadInputs, UsageError
from shardwave.preprocess.config import FREQUENCY_SCALES, SpectrogramConfig
from shardwave.shards.build.builder import BuildOptions, build, build_table
from shardwave.shards.inspect import compare_audio, figures, lookup, summary
from shardwave.shards.inspect.figures import LABEL, TILE, row_of
from shardwave.shards.read.open_set import open_set

RATE = 8_000  # Hz
CONFIG = SpectrogramConfig(sample_rate=RATE, n_fft=512, hop_length=128, image_size=64, slices=4)
OPTIONS = BuildOptions(engine="reference", device="cpu", workers=1, min_shards=1, max_bad_fraction=1.0)


def tone(path: Path, hz: float, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.001, len(time))
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * time) + noise, RATE, subtype="PCM_16")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kaggle's layout: two classes to train on, four clips without a label, one broken file."""
    folder = tmp_path_factory.mktemp("kaggle")
    for i in range(6):
        tone(folder / "train" / "high" / f"h {i}.wav", 2_000 + 100 * i, 1.0, i)
        tone(folder / "train" / "low" / f"l {i}.wav", 300 + 50 * i, 0.5, 10 + i)
    for i in range(4):
        tone(folder / "test" / f"{i}.wav", 1_000, 2.0, 20 + i)
    (folder / "train" / "low" / "broken.wav").write_bytes(b"RIFF but no more")
    return folder


@pytest.fixture(scope="module")
def built(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "set"
    build(audio, out, CONFIG, dataclasses.replace(OPTIONS, val_fraction=0.34))
    return out


def test_summary_counts_everything(built: Path) -> None:
    found = summary.summary(built)
    counts = found["counts"]
    assert list(counts) == ["train", "val", "test"]
    assert counts["test"] == {
        "full": {"high": 0, "low": 0, summary.UNLABELLED: 4},
        "slice": {"high": 0, "low": 0, summary.UNLABELLED: 16},
    }
    for view, times in (("full", 1), ("slice", 4)):
        assert {
            name: counts["train"][view][name] + counts["val"][view][name] for name in ("high", "low")
        } == {
            "high": 6 * times,
            "low": 6 * times,
        }
    assert found["clips"] == 16 and found["durations"] == {
        "total": 17.0,
        "min": 0.5,
        "median": 1.0,
        "max": 2.0,
    }
    assert (
        found["audio_seconds"] == 17.0 and found["source_rates"] == {str(RATE): 16} and found["groups"] == {}
    )
    assert [entry["path"] for entry in found["quarantined"]] == ["train/low/broken.wav"] and found[
        "quarantined"
    ][0]["reason"]
    json.dumps(found)


def test_describe_is_a_table_whose_sums_are_right(built: Path) -> None:
    text = summary.describe(summary.summary(built))
    lines = text.splitlines()
    assert max(map(len, lines)) < 140
    total = next(line for line in lines if line.split()[:1] == ["total"] and "4" in line)
    assert total.split()[-2:] == ["16", "64"]
    high = next(line for line in lines if line.split()[:1] == ["high"])
    assert high.split()[-2:] == ["6", "24"] and "·" in high
    assert (
        "quarantined  1 clip" in text
        and "train/low/broken.wav: " in text
        and "0.5 to 2 s, median 1 s" in text
    )


def test_classes_that_a_split_lacks_are_named(audio: Path, tmp_path: Path) -> None:
    rows = [
        f"train/{name}/{name[0]} {i}.wav,{name},{'val' if name == 'low' and i < 2 else 'train'}"
        for name in ("high", "low")
        for i in range(6)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    build(audio, tmp_path / "set", CONFIG, dataclasses.replace(OPTIONS, labels=tmp_path / "labels.csv"))
    found = summary.summary(tmp_path / "set")
    assert found["absent"] == {"val": ["high"]} and "val has no clips of high" in summary.describe(found)


@pytest.mark.parametrize("scale", FREQUENCY_SCALES)
def test_frequency_axis_is_where_the_tones_are(tmp_path: Path, scale: str) -> None:
    """A pure tone's brightest row must be the one that the axis gives its frequency."""
    tones = [250.0, 500.0, 1_000.0, 2_000.0, 3_000.0]
    for hz in tones:
        tone(tmp_path / "audio" / ("low" if hz < 1_000 else "high") / f"{hz:.0f}.wav", hz, 1.0, 0)
    config = dataclasses.replace(CONFIG, frequency_scale=scale, slices=0)
    build(tmp_path / "audio", tmp_path / "set", config, dataclasses.replace(OPTIONS, val_fraction=0.0))
    view = open_set(tmp_path / "set").view("train")
    for i in range(len(view)):
        brightest = view.gather([i])["npy"][0].astype(float).mean(axis=1).argmax()
        hz = float(Path(view.meta(i)["path"]).stem)
        assert abs(brightest - row_of(config, np.array(hz))) <= 1.0, (scale, hz)


def picture(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_draw_by_key_slice_key_and_path(built: Path, tmp_path: Path) -> None:
    view = open_set(built).view("train", "full")
    key, path = view.key(0), view.meta(0)["path"]
    drawn = figures.draw_sample(built, key, tmp_path / "deep" / "a.png")
    assert drawn["path"] == path and drawn["slices"] == 4
    assert figures.draw_sample(built, f"{key}_s002", tmp_path / "b.png")["key"] == key
    first, second = (picture(tmp_path / name) for name in ("deep/a.png", "b.png"))
    assert np.array_equal(first, second) and lookup.find(open_set(built), path)[1] == 0
    assert (
        first.shape[0] > 600 and first.shape[1] > 1_200 and len(np.unique(first.reshape(-1, 3), axis=0)) > 100
    )
    with pytest.raises(UsageError, match=r"no sample nonsense; keys look like 0000\d\d_"):
        figures.draw_sample(built, "nonsense", tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


def test_contact_sheet_shows_every_class(built: Path, tmp_path: Path) -> None:
    from PIL import Image

    drawn = figures.draw_sheet(built, tmp_path / "sheet.png", per_class=3)
    assert drawn["classes"] == 3 and drawn["samples"] == 9  # high, low, unlabelled
    figures.draw_sheet(built, tmp_path / "sheet.png", per_class=1)
    sheet = picture(tmp_path / "sheet.png").mean(axis=2)
    view = open_set(built).view(["train", "val", "test"])
    side = round(TILE * 150)
    for line, cls in enumerate(
        (0, 1, -1)
    ):  # the picture stands where its class is written, low frequencies below
        y, x = round((0.4 + line * (TILE + 0.3)) * 150), round(LABEL * 150)
        tile = sheet[y : y + side, x : x + side]
        image = Image.fromarray(view.gather([int(np.flatnonzero(view.cls == cls)[0])])["npy"][0][::-1])
        expected = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
        assert np.corrcoef(tile.ravel(), expected.ravel())[0, 1] > 0.98
        assert np.corrcoef(tile.ravel(), expected[::-1].ravel())[0, 1] < 0.9


def test_against_the_same_audio_is_identical(built: Path, audio: Path) -> None:
    found = compare_audio.compare(built, audio)
    assert (
        found["verdict"] == "identical"
        and found["clips"] == 12
        and found["samples"] == 60 == found["identical"]
    )
    assert found["compared_with"] == found["built_with"] == "reference on cpu"
    one = compare_audio.compare(built, audio, "train/high/h 1.wav")
    assert (
        one["clips"] == 1
        and one["samples"] == 5
        and compare_audio.describe(one).startswith("identical: 1 clips, 5 samples")
    )


def test_against_changed_audio(built: Path, audio: Path, tmp_path: Path) -> None:
    changed = tmp_path / "audio"
    shutil.copytree(audio, changed)
    tone(changed / "train" / "high" / "h 1.wav", 1_500, 1.0, 99)
    other = compare_audio.compare(built, changed, "train/high/h 1.wav")
    assert other["verdict"] == "different" and other["worst"]["levels"] > 4 and "h-1" in other["worst"]["key"]
    (changed / "train" / "high" / "h 2.wav").unlink()
    some = compare_audio.compare(built, changed, clips=16)
    assert (
        some["missing"] == ["train/high/h 2.wav"] and some["clips"] == 15 and some["verdict"] == "different"
    )
    with pytest.raises(
        UsageError, match="the folder does not contain .*; give the folder that the set was built from"
    ):
        compare_audio.compare(built, changed, "train/high/h 2.wav")
    with pytest.raises(UsageError, match="must be the audio folder"):
        compare_audio.compare(built, tmp_path / "absent")


def test_against_another_number_of_slices(audio: Path, tmp_path: Path) -> None:
    """A shortened clip has fewer slices of a fixed length: a difference, even if all pixels agree."""
    folder = tmp_path / "audio"
    shutil.copytree(audio / "train", folder)
    (folder / "low" / "broken.wav").unlink()
    build(folder, tmp_path / "set", dataclasses.replace(CONFIG, slice_seconds=0.25), OPTIONS)
    tone(folder / "high" / "h 1.wav", 2_100, 0.5, 1)
    found = compare_audio.compare(tmp_path / "set", folder, "high/h 1.wav")
    assert found["verdict"] == "different" and found["unlike"]


def test_against_with_a_device_that_is_not_here(built: Path, audio: Path, tmp_path: Path) -> None:
    """A set of an engine that is missing here is compared by another one, within the tolerance of engines."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device: no device is missing")
    copy = tmp_path / "set"
    shutil.copytree(built, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.update(engine="torch", device="cuda")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    found = compare_audio.compare(copy, audio, clips=4)
    assert found["built_with"] == "torch on cuda" and found["compared_with"] == "numba on cpu"
    assert found["verdict"] in ("within tolerance", "identical")


def test_sets_without_images(tmp_path: Path) -> None:
    rows = [f"{i},{'a' if i % 2 else 'b'},{i * 0.5},{i * 2}" for i in range(20)]
    (tmp_path / "table.csv").write_text("\n".join(["id,label,x,y", *rows]))
    build_table(tmp_path / "table.csv", tmp_path / "set")
    found = summary.summary(tmp_path / "set")
    assert found["clips"] == 20 and found["durations"] is None
    assert "features.npy float32" in summary.describe(found)
    with pytest.raises(UsageError, match="contains no spectrograms"):
        figures.draw_sheet(tmp_path / "set", tmp_path / "x.png")
    with pytest.raises(UsageError, match="was not built from audio"):
        compare_audio.compare(tmp_path / "set", tmp_path)


def test_a_set_that_set_most_aside_is_still_described(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tone(tmp_path / "audio" / name / "good.wav", 440, 0.5, 0)
        tone(tmp_path / "audio" / name / "fine.wav", 880, 0.5, 1)
        for i in range(12):
            (tmp_path / "audio" / name / f"bad{i}.wav").write_bytes(b"RIFF")
    with pytest.raises(TooManyBadInputs):
        build(
            tmp_path / "audio",
            tmp_path / "set",
            CONFIG,
            dataclasses.replace(OPTIONS, max_bad_fraction=0.1, val_fraction=0.0),
        )
    text = summary.describe(summary.summary(tmp_path / "set"))
    assert "quarantined  24 clips" in text and "and 14 more in quarantine.jsonl" in text


def test_one_sample_is_printed_by_key_and_path(built: Path) -> None:
    opened = open_set(built)
    view = opened.view("train", "slice")
    found = lookup.sample(str(built), view.key(4))
    assert (
        found["key"] == view.key(4)
        and found["split"] == "train"
        and found["shard"] in {e["file"] for e in view.entries}
    )
    assert opened.config is not None and found["slices"] == opened.config.slices
    assert {name: found[name] for name in view.meta(4)} == view.meta(4)
    image, size = view.gather([4])["npy"][0], opened.config.image_size
    assert found["values"]["npy"] == {
        "dtype": "uint8",
        "shape": [size, size],
        "min": image.min(),
        "mean": pytest.approx(image.mean()),
        "max": image.max(),
    }
    text = lookup.describe_sample(found)
    assert text.startswith(view.key(4)) and f"uint8 {size} x {size}" in text and view.meta(4)["path"] in text
    whole = lookup.sample(built, view.meta(4)["path"])
    assert whole["view"] == "full" and whole["clip"] == found["clip"] and whole["slices"] == found["slices"]
    with pytest.raises(UsageError, match="has no sample nowhere; keys look like"):
        lookup.sample(built, "nowhere")
