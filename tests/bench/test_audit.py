"""The audit command on real small sets: files, exit status, suggested groups and label errors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.bench.audit import audit
from shardwave.common.errors import UsageError
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.read.open_set import open_set

ROOT = Path(__file__).resolve().parents[2]
RATE = 8_000
CONFIG = SpectrogramConfig(
    sample_rate=RATE, n_fft=512, hop_length=128, image_size=32, slices=0, features=True
)
FLIPPED = ("class 0/4.wav", "class 1/11.wav", "class 2/8.wav")
COPY, ORIGINAL = "class 0/copy <b>.wav", "class 0/5.wav"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 bursts of noise around a tone, three wrong labels, and a copy in another fold."""
    audio = tmp_path_factory.mktemp("audit") / "audio"
    rows = []
    for label in range(3):
        (audio / f"class {label}").mkdir(parents=True)
        for i in range(20):
            rng = np.random.default_rng(100 * label + i)
            count = 2 * RATE
            level = np.interp(np.arange(count), np.linspace(0, count, 15), rng.uniform(0, 1, 15))
            tone = np.sin(2 * np.pi * (300 + 700 * label + 10 * i) * np.arange(count) / RATE)
            samples = 0.2 * level * (tone + rng.standard_normal(count))
            path = f"class {label}/{i}.wav"
            soundfile.write(audio / path, samples, RATE)
            named = (label + 1) % 3 if path in FLIPPED else label
            rows.append(f"{path},class {named},{1 + i % 3}")
    samples, _ = soundfile.read(audio / ORIGINAL)
    soundfile.write(audio / COPY, 0.5 * samples[1_000:], RATE)
    rows.append(f"{COPY},class 0,1")  # the original is in fold 3
    (audio / "labels.csv").write_text("\n".join(["path,label,fold", *rows]) + "\n")
    return audio


@pytest.fixture(scope="module")
def shard_set(folder: Path) -> Path:
    options = BuildOptions(labels=folder / "labels.csv", workers=1, min_shards=1)
    build(folder, folder.parent / "set", CONFIG, options)
    return folder.parent / "set"


@pytest.fixture(scope="module")
def run(shard_set: Path) -> Path:
    out = shard_set.parent / "run"
    train(shard_set, defaults("mlp", epochs=12, folds="all", device="cpu"), out)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_label_errors_and_copies_are_found(shard_set: Path, run: Path, folder: Path) -> None:
    out = shard_set.parent / "audit"
    result = audit(shard_set, out, run=run, audio=folder)
    found = rows(out / "audit.csv")
    assert list(found[0]) == ["path", "finding", "severity", "evidence", "suggestion"]
    assert {row["path"] for row in found if row["finding"] == "label"} >= set(FLIPPED)
    assert [row["path"] for row in found if row["severity"] == "high"] in ([COPY], [ORIGINAL])
    assert result["severities"]["high"] == 1 and result["unchecked"] == []
    page = (out / "audit.html").read_text()
    assert "copy &lt;b&gt;.wav" in page and "<b>.wav" not in page
    assert 'src="../audio/class%200/copy%20%3Cb%3E.wav"' in page and "data:image/png;base64," in page


def test_the_suggested_groups_repair_the_set(shard_set: Path, folder: Path) -> None:
    audit(shard_set, shard_set.parent / "before")
    groups = shard_set.parent / "before" / "groups.csv"
    repaired = shard_set.parent / "repaired"
    options = BuildOptions(labels=folder / "labels.csv", groups=groups, workers=1, min_shards=1)
    build(folder, repaired, CONFIG, options)
    assert audit(repaired, shard_set.parent / "after")["severities"]["high"] == 0
    view = open_set(repaired).view(open_set(repaired).splits)
    group = {(meta := view.meta(i))["path"]: (meta["group"], meta["fold"]) for i in range(len(view))}
    assert group[COPY] == group[ORIGINAL] and len(group) == 61


def test_exit_status_and_json(shard_set: Path) -> None:
    def status(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            ROOT / "cli.py",
            "audit",
            shard_set,
            "--out",
            shard_set.parent / "cli",
            *options,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    done = status("--json")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["severities"]["high"] == 1
    assert "near-copy-across-splits" in done.stdout and "not checked: labels" in done.stdout
    assert status("--fail-on", "none").returncode == 0


def test_a_run_of_another_set_is_refused(run: Path, tmp_path: Path, folder: Path) -> None:
    build(folder, tmp_path / "set", CONFIG, BuildOptions(label_from="^([^/]+)/", workers=1, min_shards=1))
    with pytest.raises(UsageError, match="was trained on another set"):
        audit(tmp_path / "set", tmp_path / "out", run=run)
