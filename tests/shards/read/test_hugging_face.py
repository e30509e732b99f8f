"""Hugging Face's `datasets` reads a set from local files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shardwave.shards.read.open_set import open_set

datasets = pytest.importorskip("datasets")


def test_load_dataset_reads_the_samples(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    files = {"train": str(built / "train-full-*.tar")}
    samples = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    view = open_set(built).view("train")
    images = view.gather(np.arange(len(view)))["npy"]
    rows = {view.key(i): i for i in range(len(view))}
    assert {sample["__key__"].rsplit("/", 1)[-1] for sample in samples} == set(rows)
    for sample in samples:
        row = rows[sample["__key__"].rsplit("/", 1)[-1]]
        assert (np.asarray(sample["npy"]) == images[row]).all() and int(sample["cls"]) == view.cls[row]
        assert sample["json"]["path"] == view.meta(row)["path"]
