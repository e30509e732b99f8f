"""A package adds an engine, embedding, backend, network and data set by entry points, used by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardwave.shards.sources import synthetic

ROOT = Path(__file__).resolve().parents[1]
PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "tiny-extensions"
version = "1.0"

[project.entry-points."shardwave.engines"]
tiny-engine = "tiny_extensions:make_engine"

[project.entry-points."shardwave.backends"]
tiny-backend = "tiny_extensions:Backend"

[project.entry-points."shardwave.networks"]
tiny-net = "tiny_extensions:NETWORK"

[project.entry-points."shardwave.embeddings"]
tiny_vectors = "tiny_extensions:EMBEDDING"

[project.entry-points."shardwave.datasets"]
tiny-data = "tiny_extensions:DATA_SET"
broken-data = "tiny_extensions:NOT_THERE"

[tool.setuptools]
py-modules = ["tiny_extensions"]
"""
MODULE = """
import torch

from shardwave.models.networks.base import Network
from shardwave.models.networks.registry import NetworkSpec
from shardwave.preprocess.embeddings.base import Embedding
from shardwave.preprocess.embeddings.registry import EmbeddingSpec
from shardwave.preprocess.engines.reference import ReferenceEngine
from shardwave.search.backends.random import RandomBackend
from shardwave.shards.clip import Clip
from shardwave.shards.sources.known.data_set import DataSet, Reading


class Engine(ReferenceEngine):
    name = "tiny-engine"


def make_engine(config, device):
    return Engine(config)


class Backend:
    name = "tiny-backend"
    schedulers, samplers = ("none",), ("random",)

    def run(self, objective, space, budget, seed, log=None):
        return RandomBackend().run(objective, space, budget, seed, log)


class Net(Network):
    def __init__(self, inputs, config):
        super().__init__(inputs)
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(inputs.classes))
        self.body(torch.zeros(1, 1, *inputs.shape))


class Levels(Embedding):
    sample_rate, frame_hop, window, window_hop = 8_000, 80, 50, 25

    def spectrogram(self, samples):
        return samples[: len(samples) // 80 * 80].view(-1, 80).abs()

    def forward(self, windows):
        return windows.mean(2).topk(2).values


EMBEDDING = EmbeddingSpec(Levels, size=2, revision="r1")
NETWORK = NetworkSpec(Net, train_view="full", defaults={"epochs": 2})


def read(root, split):
    paths = sorted(root.glob("*/*.wav"))
    return Reading([Clip(f"{path.parent.name}/{path.name}", path.parent.name) for path in paths])


DATA_SET = DataSet(
    name="tiny-data", title="Tiny", homepage="none", licence="CC0", citation="none", remotes=(),
    archive="tiny.zip", megabytes=1, clips=8, layout="class folders", preset="sound",
    splits={"random": "drawn"}, find=lambda folder: any(folder.glob("*/*.wav")),
    read=read,
)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the package is installed."""
    folder = tmp_path_factory.mktemp("extensions")
    (folder / "source").mkdir()
    (folder / "source" / "pyproject.toml").write_text(PROJECT)
    (folder / "source" / "tiny_extensions.py").write_text(MODULE)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        "install",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--target", str(folder / "site"), str(folder / "source")], check=True)
    return folder / "site"


def shardwave(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_each_kind_is_used_by_name(site: Path, tmp_path: Path) -> None:
    def result(*arguments: str) -> dict:
        finished = shardwave(site, tmp_path, *arguments, "--json")
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout.splitlines()[-1])

    synthetic.make(tmp_path / "audio", artists=2, clips=1, seconds=2.0)
    clips = 2 * len(synthetic.GENRES)
    assert result("fetch", "tiny-data", "--from", "audio", "--out", "fetched")["clips"] == clips
    built = result(
        "shard", "audio", "--engine", "tiny-engine", "--image-size", "16", "--slices", "0", "--out", "set"
    )
    assert (built["engine"], built["clips"]) == ("tiny-engine", clips)
    embedded = result("embed", "set", "audio", "--with", "tiny_vectors", "--out", "embedded")
    assert embedded["fields"]["tiny_vectors.npy"]["shape"] == [6]
    slices = ("--image-size", "16", "--slices", "2", "--embed", "tiny_vectors")
    assert result("shard", "audio", *slices, "--out", "sliced")["config"]["embeddings"] == "tiny_vectors r1"
    heads = ("--model", "mlp", "--inputs", "tiny_vectors", "--epochs", "2")
    assert result("train", "sliced", *heads, "--out", "head")["params"]["inputs"] == "tiny_vectors"
    assert result("predict", "head", "audio", "--out", "predicted.csv")["clips"] == clips
    trained = result("train", "set", "--model", "tiny-net", "--out", "run")
    assert trained["state"] == "COMPLETE" and len(trained["history"]) == 2
    arguments = (
        "--backend",
        "tiny-backend",
        "--trials",
        "2",
        "--epochs",
        "1",
        "--jobs",
        "1",
        "--out",
        "found",
    )
    searched = result("search", "set", "--model", "tiny-net", *arguments)
    assert (searched["backend"], searched["trials"]) == ("tiny-backend", 2)
    assert result("evaluate", "run", "set")["model"] == "tiny-net"


def test_an_extension_that_cannot_be_imported_is_named(site: Path, tmp_path: Path) -> None:
    finished = shardwave(site, tmp_path, "fetch", "broken-data", "--out", "x")
    assert (
        finished.returncode == 2
        and "broken-data of the package tiny-extensions cannot be imported" in finished.stderr
    )


def test_unknown_names_list_extensions_too(site: Path, tmp_path: Path) -> None:
    code = "from shardwave.models.networks.registry import find; find('none')"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert "model must be one of mlp, cnn, vgg16, transfer, cnn-plus, tiny-net, got none" in finished.stderr
