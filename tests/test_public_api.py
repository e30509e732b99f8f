"""The public functions of `shardwave`, with own networks and arrays."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import shardwave
from shardwave.common.errors import UsageError
from shardwave.preprocess.engines.registry import make_engine
from shardwave.shards.sources import synthetic

ROOT = Path(__file__).resolve().parents[1]
CONFIG = shardwave.SpectrogramConfig(image_size=16, slices=2, features=True)
RATE = CONFIG.sample_rate


def network(shape: tuple[int, ...], classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, classes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audio, and a set of it."""
    folder = tmp_path_factory.mktemp("api")
    labels = synthetic.make(folder / "audio", artists=3, clips=1, seconds=2.0)
    shardwave.build(folder / "audio", folder / "set", CONFIG, labels=labels, workers=1, min_shards=1)
    return folder


def test_every_name_is_there_and_importing_takes_no_torch() -> None:
    assert all(getattr(shardwave, name) is not None for name in shardwave.__all__)
    code = "import sys, shardwave; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'none'"):
        shardwave.none  # type: ignore[attr-defined]  # noqa: B018


def test_a_spectrogram_of_an_array_is_that_of_a_build() -> None:
    clip = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    made = shardwave.spectrogram(clip, RATE, CONFIG)
    output = make_engine("numba", "cpu", CONFIG)([clip])
    assert (made.image == output.full[0]).all() and (made.slices == output.slices[0]).all()
    assert (
        made.features is not None
        and output.features is not None
        and (made.features == output.features[0]).all()
    )
    stereo = shardwave.spectrogram(np.stack([clip, clip], 1), RATE, CONFIG)
    assert (stereo.image == made.image).all()
    assert shardwave.spectrogram(clip, 2 * RATE, CONFIG).image.shape == (16, 16)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 2, 2)), np.array([np.nan, 1.0])])
def test_wrong_arrays_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(UsageError, match="samples must be finite numbers of shape"):
        shardwave.spectrogram(samples, RATE)


def test_an_own_network_is_trained_scored_loaded_and_predicts(folder: Path) -> None:
    run = folder / "own"
    result = shardwave.train(
        folder / "set", network, run, epochs=2, batch_size=8, params={"width": 4}, device="cpu"
    )
    assert result["state"] == "COMPLETE" and result["params"] is not None and result["params"]["width"] == 4
    trained = shardwave.load_model(run)
    assert trained.network.body[1].out_features == 4  # type: ignore[union-attr, index]
    assert trained.network(torch.zeros(3, 16, 16, dtype=torch.uint8)).shape == (3, len(trained.classes))
    assert (
        shardwave.evaluate(run, folder / "set", splits=["val"], device="cpu")["splits"]["val"]["kind"]
        == "validation"
    )
    files = shardwave.predict(run, folder / "audio", device="cpu", workers=1)
    paths = sorted((folder / "audio").glob("*/*.wav"))
    assert [prediction.clip for prediction in files] == [f"{path.parent.name}/{path.name}" for path in paths]
    arrays = shardwave.predict(run, [soundfile.read(path)[0] for path in paths], rate=RATE, device="cpu")
    assert [prediction.label for prediction in arrays] == [prediction.label for prediction in files]
    for one, other in zip(arrays, files, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    page = shardwave.report(run, folder / "page.html")
    assert "<html" in page.read_text()


def test_an_own_network_on_features(folder: Path) -> None:
    options = {"field": "features.npy", "epochs": 1, "device": "cpu"}
    result = shardwave.train(folder / "set", network, folder / "features", **options)
    assert result["state"] == "COMPLETE"
    clip = np.random.default_rng(0).standard_normal(2 * RATE)
    (prediction,) = shardwave.predict(folder / "features", [clip], rate=RATE, device="cpu")
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(("backend", "jobs"), [("random", 2), ("optuna", 1)])
def test_an_own_network_is_tuned_also_one_that_cannot_be_imported(
    folder: Path, backend: str, jobs: int
) -> None:
    def local(shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
        return network(shape, classes, width)

    space = {"width": shardwave.Choice((2, 4)), "learning_rate": shardwave.LogUniform(1e-3, 1e-1)}
    options = {"trials": 3, "epochs": 1, "jobs": jobs, "device": "cpu"}
    result = shardwave.tune(folder / "set", local, folder / backend, space=space, backend=backend, **options)
    assert result["best"] is not None and set(result["best"]["params"]) == {"width", "learning_rate"}
    assert shardwave.load_model(folder / backend, local).network.body[1].out_features in (2, 4)  # type: ignore[union-attr, index]


def test_wrong_networks_are_refused(folder: Path) -> None:
    def wrong(shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, classes + 1))

    with pytest.raises(UsageError, match=r"must map \[batch, 1, 16, 16\] to \[batch, \d+\], got"):
        shardwave.train(folder / "set", wrong, folder / "wrong", epochs=1, device="cpu")
    with pytest.raises(UsageError, match="model must be one of mlp, cnn"):
        shardwave.train(folder / "set", "none", folder / "wrong")
    with pytest.raises(UsageError, match="apply to own networks only"):
        shardwave.train(folder / "set", "mlp", folder / "wrong", params={"width": 2})
    with pytest.raises(UsageError, match="rate is missing"):
        shardwave.predict(folder / "set", [np.zeros(10)])


def test_messages_go_through_logging(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("shardwave.messages")
    logger.handlers, logger.propagate = [], True  # as in a program that configures nothing
    logger.setLevel(logging.NOTSET)
    shardwave.build(folder / "audio", folder / "silent", CONFIG, workers=1, min_shards=1)
    assert capfd.readouterr().err == "" and not caplog.records
    with caplog.at_level(logging.INFO, logger="shardwave"):
        shardwave.build(folder / "audio", folder / "told", CONFIG, workers=1, min_shards=1)
    assert any(record.getMessage().startswith(f"built {folder / 'told'}") for record in caplog.records)
