"""Exported files, run by ONNX Runtime or `torch.export` alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import shardwave
from shardwave.cli import main_group
from shardwave.common.errors import UsageError
from shardwave.models.evaluation.export import METADATA, export
from shardwave.models.evaluation.predict import predict
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions

RATE = 22_050
ESC10 = Path(__file__).parents[4] / "shared" / "data" / "esc10"

# what a program without Shardwave does: paths of audio on standard input, probabilities on standard output
CONSUMER = """
import json, sys
import numpy, onnxruntime, soundfile, soxr

session = onnxruntime.InferenceSession(sys.argv[1])
metadata = session.get_modelmeta().custom_metadata_map
rate, rows = int(metadata["sample_rate"]), []
for path in json.load(sys.stdin):
    samples, source = soundfile.read(path, dtype="float32", always_2d=True)
    samples = samples.mean(axis=1)
    if source != rate:
        samples = soxr.resample(samples, source, rate, quality="HQ")
    rows.append(session.run(["probabilities"], {"waveform": samples})[0].tolist())
assert not {"torch", "shardwave"} & set(sys.modules)
print(json.dumps({"metadata": metadata, "rows": rows}))
"""


def consume(model: Path, paths: list[Path]) -> tuple[dict[str, str], np.ndarray]:
    process = subprocess.run(
        [sys.executable, "-c", CONSUMER, str(model)],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=True,
    )
    output = json.loads(process.stdout)
    return output["metadata"], np.array(output["rows"])


def predicted(run: Path, folder: Path, out: Path, paths: list[Path]) -> np.ndarray:
    predict(run, folder, out, probabilities=True, device="cpu", workers=1)
    with open(out, newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    names = [str(path.relative_to(folder)) for path in paths]
    return np.array([[float(rows[name]["high tone"]), float(rows[name]["low"])] for name in names])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise of changing colour, of several lengths, formats and rates."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    paths = []
    for number, (seconds, rate) in enumerate([(0.05, 22_050), (0.7, 22_050), (1.0, 44_100), (6.1, 16_000)]):
        time = np.arange(round(seconds * rate)) / rate
        sound = 0.3 * np.sin(2 * np.pi * (300 + 3_000 * time / seconds) * time) + 0.01 * rng.normal(
            size=len(time)
        )
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], np.stack([sound, sound / 2], 1), rate)
    return paths


@pytest.fixture
def embedded_set(
    tone_set: Path, pretrained: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tones, with the outputs of the audio networks."""
    for weights in ("aisfx", "musicnn"):
        pretrained(weights)
    out = tmp_path_factory.getbasetemp() / "embedded tones"
    if not out.exists():
        embeddings = ",".join(registry.versioned(("aisfx", "musicnn", "musicnn_mtt")))
        config = SpectrogramConfig(image_size=32, slices=2, embeddings=embeddings)
        options = BuildOptions(val_fraction=0.25, engine="numba", device="cpu", workers=1)
        build(tone_set.parent / "audio", out, config, options)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("model", "select_by"), [("cnn", "slice_mean"), ("cnn-plus", "full")])
def test_onnx_runtime_alone_predicts_as_the_program_does(
    model: str, select_by: str, tone_run: Callable[..., Path], clips: list[Path], tmp_path: Path
) -> None:
    run, out = tone_run(model, select_by), tmp_path / "model.onnx"
    main_group.main(["export", str(run), "--out", str(out)], standalone_mode=False)
    metadata, probabilities = consume(out, clips)
    expected = predicted(run, clips[0].parent, tmp_path / "predicted.csv", clips)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    assert np.ptp(expected[:, 0]) > 0.05
    assert json.loads(metadata["classes"]) == ["high tone", "low"]
    assert (metadata["sample_rate"], metadata["model"], metadata["view"]) == ("22050", model, select_by)
    trained = shardwave.load_model(run)
    assert (metadata["fingerprint"], metadata["set_id"]) == (trained.fingerprint, trained.set_id)
    assert trained.set_id in metadata["license"]


@pytest.mark.slow
@pytest.mark.parametrize(("names", "train_view"), [("aisfx", "full"), ("musicnn_mtt,musicnn", "slice")])
def test_audio_networks_are_in_the_graph(
    names: str,
    train_view: str,
    embedded_set: Path,
    clips: list[Path],
    tmp_path: Path,
) -> None:
    config = defaults("mlp", inputs=names, epochs=3, batch_size=4, device="cpu", train_view=train_view)
    train(embedded_set, config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "model.onnx")
    metadata, probabilities = consume(tmp_path / "model.onnx", clips)
    expected = predicted(tmp_path / "run", clips[0].parent, tmp_path / "predicted.csv", clips)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    assert np.ptp(expected[:, 0]) > 0.05
    assert metadata["sample_rate"] == ("44100" if names == "aisfx" else "16000")
    assert ("CC BY 4.0" if names == "aisfx" else "ISC") in metadata["license"]


@pytest.mark.slow
def test_the_frozen_network_is_in_the_graph(
    tone_set: Path, clips: list[Path], pretrained: Callable[[str], None], tmp_path: Path
) -> None:
    pretrained("efficientnet-lite0")
    config = defaults("transfer", backbone="efficientnet-lite0", epochs=3, batch_size=4, device="cpu")
    train(tone_set, config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "model.onnx")
    metadata, probabilities = consume(tmp_path / "model.onnx", clips)
    expected = predicted(tmp_path / "run", clips[0].parent, tmp_path / "predicted.csv", clips)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    assert np.ptp(expected[:, 0]) > 0.05
    assert "Apache-2.0" in metadata["license"]


@pytest.mark.slow
@pytest.mark.skipif(not ESC10.exists(), reason="needs the recordings of ESC-10 beside the repository")
def test_a_hundred_real_clips(tone_run: Callable[..., Path], tmp_path: Path) -> None:
    paths = []
    for path in sorted(ESC10.glob("*/*.ogg"))[::4][:100]:
        paths.append(tmp_path / "audio" / path.name)
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].symlink_to(path)
    assert len(paths) == 100
    run = tone_run("cnn", "slice_mean")
    export(run, tmp_path / "model.onnx")
    expected = predicted(run, tmp_path / "audio", tmp_path / "predicted.csv", paths)
    np.testing.assert_allclose(consume(tmp_path / "model.onnx", paths)[1], expected, atol=1e-3)


@pytest.mark.slow
def test_torch_export_predicts_as_the_program_does(
    tone_run: Callable[..., Path], clips: list[Path], tmp_path: Path
) -> None:
    run, extra = tone_run("cnn", "slice_mean"), {METADATA: ""}
    shardwave.export(run, tmp_path / "model.pt2", "torch")
    module = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(json.loads(extra[METADATA])["classes"]) == ["high tone", "low"]
    for path in clips[:2]:
        samples = soundfile.read(path, dtype="float32")[0].mean(axis=1)
        (expected,) = shardwave.predict(run, [samples], rate=RATE, device="cpu")
        found = module(torch.from_numpy(samples)).detach().numpy()
        np.testing.assert_allclose(found, list(expected.probabilities.values()), atol=1e-3)


def test_what_cannot_be_exported_is_refused(
    tone_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--format must be one of onnx, torch, got tflite"):
        export(tone_run("cnn"), tmp_path / "model", "tflite")
    with pytest.raises(UsageError, match="--out must end in .pt2"):
        export(tone_run("cnn"), tmp_path / "model", "torch")
    with pytest.raises(UsageError, match="mlp takes features"):
        export(tone_run("mlp"), tmp_path / "model")
    with pytest.raises(UsageError, match="no checkpoint.ckpt"):
        export(tmp_path, tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"onnxscript is not installed: pip install 'shardwave\[onnx\]'"):
        export(tone_run("cnn"), tmp_path / "model")
    assert not (tmp_path / "model").exists()
