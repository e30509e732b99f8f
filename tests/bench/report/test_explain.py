"""The report explains a run: interval, classes, confusions, reliability, and errors with their pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from shardwave.bench.report import explain
from shardwave.bench.report.blocks import Bars, Details, Gallery, Table, Text
from shardwave.bench.report.page import rendered
from shardwave.models.runs import result
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.writer import Row, write_set

CLASSES = ["bell <b>", "rain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose images are noise, so that there are errors, and two runs on it."""
    out = tmp_path_factory.mktemp("explain")
    rng = np.random.default_rng(0)
    config = SpectrogramConfig(image_size=16, slices=0, features=True)

    def rows(split: str):
        for number in range(24):
            label, group = number % 2, f"{split} {number // 4}"
            place = {"view": "full", "slice": None, "start": 0.0, "length": 1.0, "source_rate": 22_050}
            meta = {
                "label": CLASSES[label],
                "path": f"{split}/{number}.wav",
                "group": group,
                "fold": None,
                **place,
            }
            features = rng.normal(size=6).astype(np.float32) + label
            image = rng.integers(0, 255, (16, 16)).astype(np.uint8)
            yield Row(f"{split}{number}", label, number, meta, {"npy": image, "features.npy": features})

    described = {
        "config": config.__dict__, "engine": "numba", "device": "cpu", "seed": 0, "classes": CLASSES,
        "feature_names": list("abcdef"), "clips": 72, "audio_seconds": 72.0,
    }  # fmt: skip
    shards = ((split, "full", 0, rows(split)) for split in ("train", "val", "test"))
    fields = {"npy": ("uint8", (16, 16)), "features.npy": ("float32", (6,))}
    write_set(out / "set", shards, fields, described, samples=72)
    for seed in (0, 1):
        train(out / "set", defaults("mlp", epochs=2, device="cpu", seed=seed), out / f"run{seed}")
    return out


def test_the_blocks_are_about_the_test_clips(folder: Path) -> None:
    run = result.read(folder / "run0")
    predicted = explain.held_out(folder / "run0", run)
    assert predicted is not None and predicted.part == "test" and len(set(predicted.groups)) == 6
    blocks = explain.blocks(folder / "run0", run)
    accuracy = run["scores"]["test_full_accuracy"]
    head = blocks[0]
    assert isinstance(head, Text) and head.text.startswith(
        f"Accuracy {100 * accuracy:.1f} % on 24 test clips of 6 groups"
    )
    tables = {block.caption.split(";")[0]: block for block in blocks if isinstance(block, Table)}
    assert {"Scores of each class", "Most frequent confusions", "Coverage and accuracy"} <= tables.keys()
    wrong = sum(int(row[2]) for row in tables["Most frequent confusions"].rows)
    assert wrong == round(24 * (1 - accuracy)) > 0
    gallery = next(block for block in blocks if isinstance(block, Gallery))
    assert len(gallery.pictures) == wrong and gallery.pictures[0].source.startswith("data:image/png;base64,")
    data = blocks[-1]
    assert isinstance(data, Details)
    charts = {
        block.title: [bar.value for bar in block.bars] for block in data.blocks if isinstance(block, Bars)
    }
    assert charts["Clips of each class"] == [36, 36] and sum(charts["Length of the clips"]) == 72


def test_the_page_compares_runs_and_escapes_names(folder: Path) -> None:
    markdown, page = rendered([folder / "run0", folder / "run1"])
    assert "Runs side by side" in page and "bell &lt;b&gt;" in page and "bell <b>" not in page
    assert "Reliability" in page and "Most confident errors" in markdown


def test_a_set_that_is_gone_leaves_the_list_of_errors(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "run0", tmp_path / "run"))
    moved = {**result.read(run), "set": str(tmp_path / "nowhere")}
    blocks = explain.blocks(run, moved)
    assert not any(isinstance(block, Gallery) for block in blocks)
    assert any(isinstance(block, Table) and block.caption == "Most confident errors" for block in blocks)
