"""What commands call may be called with strings for paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shardwave.bench.report.page
from shardwave.bench.harness.record import Record, append
from shardwave.bench.report import compare
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.evaluation.predict import predict
from shardwave.models.runs import checkpoint, result
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.search.compare import compare as compare_searches
from shardwave.search.config import SearchConfig
from shardwave.search.run import search
from shardwave.search.trial_log import read_trials
from shardwave.shards import quarantine
from shardwave.shards.build.builder import BuildOptions, build, build_table
from shardwave.shards.format.verify import verify
from shardwave.shards.inspect import compare_audio, figures, lookup, summary
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.stream import stream
from shardwave.shards.sources.fetch import fetch
from tests.models.conftest import write_images
from tests.shards.conftest import CONFIG, write_clip


def test_paths_may_be_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        write_clip(Path("audio", "ab"[number % 2], f"{number}.wav"), number)
    Path("labels.csv").write_text(
        "path,label\n" + "".join(f"{'ab'[n % 2]}/{n}.wav,{'ab'[n % 2]}\n" for n in range(8))
    )
    Path("table.csv").write_text("label,x,y\n" + "".join(f"{'ab'[n % 2]},{n},{-n}\n" for n in range(8)))
    assert isinstance(CONFIG, SpectrogramConfig)
    build("audio", "set", CONFIG, BuildOptions(labels="labels.csv", workers=1, min_shards=1))
    build_table("table.csv", "features")
    assert verify(open_set("set"))["clips"] == summary.summary("set")["clips"] == 8
    assert len(list(stream("set", ["train", "val"]))) == 8 and quarantine.quarantined("set") == []
    key = open_set("set").view("train").key(0)
    lookup.sample("set", key)
    figures.draw_sample("set", key, "one.png")
    figures.draw_sheet("set", "sheet.png")
    assert compare_audio.compare("set", "audio", clips=2)["verdict"] == "identical"
    write_images(Path("images"), ["train", "val"], clips=4)
    train("images", defaults("mlp", epochs=1, hidden_size=4, device="cpu"), "run")
    assert result.read("run")["state"] == "COMPLETE" and checkpoint.load("run/checkpoint.ckpt").classes
    evaluate("run", "images", device="cpu")
    predict("run", "images", "classes.csv", device="cpu")
    Path("space.yaml").write_text("hidden_size: 4\n")
    search(
        "images",
        SearchConfig("mlp", "random", trials=2, epochs=1, jobs=1, device="cpu", space="space.yaml"),
        "found",
    )
    assert len(read_trials("found")) == 2 and len(compare_searches(["found"])) == 1
    append(Path("records.jsonl"), Record("s", "c", "ours", "s", [1.0]))
    compare.compare("records.jsonl", "records.jsonl")
    shardwave.bench.report.page.write(["run", "found", "records.jsonl"], "page.html")
    assert (
        json.loads(Path("found/result.json").read_text())["state"] == "COMPLETE"
        and Path("page.html").exists()
    )
    Path("data/recordings").mkdir(parents=True)
    for digit in range(10):
        for speaker in ("ann", "bob"):
            write_clip(Path(f"data/recordings/{digit}_{speaker}_0.wav"), digit)
    assert fetch("fsdd", "out", source="data")["clips"] == 20
