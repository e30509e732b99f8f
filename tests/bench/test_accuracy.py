"""The accuracy table on a small data set: every number in it comes from run folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.bench import accuracy
from shardwave.models.runs import result
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.read.open_set import open_set

RATE = 8_000
SPECTROGRAM = SpectrogramConfig(
    sample_rate=RATE, n_fft=512, hop_length=128, image_size=32, frequency_scale="mel", slices=3, features=True
)


@pytest.mark.slow
def test_the_table_comes_from_cross_validations_and_continues(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), ["path,label,fold"]
    (tmp_path / "audio").mkdir()
    for number in range(12):
        time = np.arange(RATE) / RATE
        samples = 0.3 * np.sin(2 * np.pi * (400 + 1500 * (number % 2)) * time) + 0.05 * rng.normal(size=RATE)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", samples, RATE)
        lines.append(f"{number}.wav,{'ab'[number % 2]},{1 + number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    options = {"epochs": 2, "batch_size": 4, "hidden_size": 8, "device": "cpu"}

    def run() -> dict:
        return accuracy.run(
            tmp_path / "audio", tmp_path / "labels.csv", tmp_path / "out", tmp_path / "work",
            rows=("mlp",), seeds=(0, 1), leaking=("mlp",), spectrogram=SPECTROGRAM, options=options,
        )  # fmt: skip

    found = run()
    row = found["rows"][0]
    runs = [result.read(tmp_path / "work" / f"mlp-{seed}") for seed in (0, 1)]
    assert row["accuracy"] == [one["scores"]["test_full_accuracy"] for one in runs]
    assert row["mean"] == pytest.approx(np.mean(row["accuracy"])) and row["deviation"] == pytest.approx(
        np.std(row["accuracy"], ddof=1)
    )
    apart, mixed = (open_set(tmp_path / "work" / name) for name in ("set-recordings", "set-slices"))
    for made, together in ((apart, True), (mixed, False)):
        view = made.view(made.splits)
        assert len(view) == 36 and len(set(view.clip.tolist())) == 36
        folds: dict[str, set[int]] = {}
        for row_number in range(36):
            meta = view.meta(row_number)
            folds.setdefault(meta["path"], set()).add(meta["fold"])
        assert all(len(each) == 1 for each in folds.values()) == together
    assert set(found["leakage"][0]) == {"model", "of", "recordings apart", "slices at random"}
    text = (tmp_path / "out" / "accuracy.md").read_text()
    assert f"| mlp | full | {100 * row['mean']:.2f} ±" in text and "a difference of" in text
    before = (tmp_path / "work" / "mlp-0" / "result.json").stat().st_mtime_ns
    assert (
        run()["rows"] == json.loads((tmp_path / "out" / "accuracy.json").read_text())["rows"] == found["rows"]
    )
    assert (tmp_path / "work" / "mlp-0" / "result.json").stat().st_mtime_ns == before
