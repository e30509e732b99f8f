"""Trainings, evaluations and searches on a set of strips, with its own and with other slices."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwave.common.errors import UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.audio_classifier import AudioClassifier
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.evaluation.export import export
from shardwave.models.evaluation.predict import predict_clips
from shardwave.models.evaluation.recordings import WindowOptions, predict_recordings
from shardwave.models.evaluation.waveform import WaveformClassifier
from shardwave.models.runs import checkpoint
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.train import train
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.search.objective import TrainingObjective
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.build.writer import write_array_set
from shardwave.shards.read.open_set import open_set
from tests.shards.conftest import RATE, write_clip

CONFIG = SpectrogramConfig(
    sample_rate=RATE, n_fft=256, hop_length=128, image_size=32, slices=3, features=True, frequency_scale="mel"
)
FRESH = {"random_slices": True, "slice_stretch": "0.8,1.25", "mix_powers": 0.5, "random_gain": 6.0}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 24 clips as audio, as a set of views and as a set of strips."""
    folder = tmp_path_factory.mktemp("strips")
    for i in range(24):
        write_clip(folder / "audio" / f"class {i % 3}" / f"{i}.wav", i, seconds=0.6 + 0.1 * (i % 2))
    for layout in ("views", "strip"):
        options = BuildOptions(layout=layout, workers=1, min_shards=1, val_fraction=0.25, test_fraction=0.25)
        build(folder / "audio", folder / layout, CONFIG, options)
    return {name: folder / name for name in ("audio", "views", "strip")}


def config_of(model: str = "cnn-plus", **changes: object) -> TrainConfig:
    small = {"epochs": 2, "batch_size": 6, "hidden_size": 8, "device": "cpu"}
    return defaults(model, **{**small, **({} if model == "mlp" else {"conv1_channels": 2}), **changes})


def test_a_training_on_vectors_does_not_depend_on_the_layout(sets: dict[str, Path]) -> None:
    histories = []
    for layout in ("views", "strip"):
        config = config_of("mlp", train_view="both")
        histories.append(fit(TrainingData(sets[layout], config), config).history)
    assert histories[0] == histories[1]


def test_fresh_slices_train_equally_in_both_loops_and_are_drawn_anew(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of(train_view="slice", **FRESH)
    data = TrainingData(sets["strip"], config)
    found = fit(data, config)
    assert found.history == train(sets["strip"], config, tmp_path / "run")["history"]
    batches = data.train_batches(config)
    images = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        rows = {}
        for batch in batches:
            rows |= zip(batch["index"].tolist(), batch["npy"].numpy().copy(), strict=True)
        images.append(np.stack([rows[i] for i in sorted(rows)]))
    assert (images[0] == images[2]).all() and (images[0] != images[1]).any()
    parts = [data.train_batches(config, rank, 2) for rank in range(2)]
    indices = np.sort(np.concatenate([batch["index"].numpy() for part in parts for batch in part]))
    assert set(indices) == set(range(len(data.train)))


def test_a_run_is_scored_with_its_own_slices(sets: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(train_view="slice", slices=2)
    result = train(sets["strip"], config, tmp_path / "run")
    assert result["set_config"]["slices"] == 2
    scored = evaluate(tmp_path / "run", sets["strip"], device="cpu")
    for name in ("val_slice_mean_accuracy", "test_slice_mean_accuracy"):
        assert scored["scores"][name] == result["scores"][name]
    with pytest.raises(UsageError, match="slices is 2 in the run, 3 in the set"):
        evaluate(tmp_path / "run", sets["views"], device="cpu")


def test_a_clip_of_another_layout_is_not_called_new(sets: dict[str, Path], tmp_path: Path) -> None:
    train(sets["views"], config_of(), tmp_path / "run")
    same = evaluate(tmp_path / "run", sets["views"], device="cpu")
    other = evaluate(tmp_path / "run", sets["strip"], device="cpu")
    assert same["splits"]["train"]["kind"] == "trained"
    assert {entry["kind"] for entry in other["splits"].values()} == {"unknown"}
    assert other["scores"].keys() == same["scores"].keys()


@pytest.fixture(scope="module")
def narrow_run(sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with other slices and another width than those of the set."""
    cut = {"train_view": "slice", "slices": 2, "image_size": 16}
    config = config_of(
        "cnn", **cut, epochs=12, learning_rate=0.02, dropout=0.0, conv1_kernel=3, conv2_kernel=3
    )
    run = tmp_path_factory.mktemp("narrow") / "run"
    assert train(sets["strip"], config, run)["selected_by"] == "slice_mean"
    return run


def test_narrow_images_of_overlapping_slices_are_scored(sets: dict[str, Path], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, slices=0, slice_seconds=0.2, slice_overlap=0.5, features=False)
    options = BuildOptions(layout="strip", workers=1, min_shards=1, val_fraction=0.25)
    build(sets["audio"], tmp_path / "set", config, options)
    narrow = config_of("cnn", image_size=16, train_view="slice", conv1_kernel=3, conv2_kernel=3, epochs=1)
    result = train(tmp_path / "set", narrow, tmp_path / "run")
    scores = evaluate(tmp_path / "run", tmp_path / "set", device="cpu")["scores"]
    assert scores["val_slice_mean_accuracy"] == result["scores"]["val_slice_mean_accuracy"]
    with pytest.raises(UsageError, match="slice_overlap is 0.5 in the run, 0.0 in the set"):
        evaluate(tmp_path / "run", sets["strip"], device="cpu")


def test_narrow_images_are_refused_by_a_set_of_views(sets: dict[str, Path], narrow_run: Path) -> None:
    with pytest.raises(UsageError, match="trained on images of 16 columns, and .* has finished images"):
        evaluate(narrow_run, sets["views"], device="cpu")


def test_narrow_images_are_computed_from_audio(
    sets: dict[str, Path], narrow_run: Path, tmp_path: Path
) -> None:
    rows = predict_clips(narrow_run, sets["strip"], device="cpu").rows
    expected = {row.source.path: row.probabilities for row in rows}
    assert len(expected) == 24 and np.ptp(list(expected.values()), axis=0).max() > 0.05
    from_files = predict_clips(narrow_run, sets["audio"], device="cpu", workers=1).rows
    trained = checkpoint.load(narrow_run / checkpoint.NAME)
    classifier, graph = AudioClassifier(trained, "cpu"), WaveformClassifier(trained)
    for row in from_files:
        samples = decode(sets["audio"] / row.source.path, RATE).samples
        with torch.inference_mode():
            exported = graph(torch.from_numpy(samples)).numpy()
        for found, tolerance in (
            (row.probabilities, 1e-6),
            (classifier([samples])[0], 1e-6),
            (exported, 1e-3),
        ):
            np.testing.assert_allclose(found, expected[row.source.path], atol=tolerance)
    options = WindowOptions(0.6, probabilities=True)  # the length of half of the clips
    predict_recordings(narrow_run, sets["audio"], tmp_path / "windows.csv", options, device="cpu")
    with open(tmp_path / "windows.csv", newline="") as file:
        windows = {row["path"]: row for row in csv.DictReader(file)}
    for i in range(0, 24, 2):
        path = f"class {i % 3}/{i}.wav"
        found = [float(windows[path][name]) for name in trained.classes]
        np.testing.assert_allclose(found, expected[path], atol=1e-4)


@pytest.mark.slow
def test_a_network_of_narrow_images_is_exported(
    sets: dict[str, Path], narrow_run: Path, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    export(narrow_run, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for row in predict_clips(narrow_run, sets["strip"], device="cpu").rows:
        samples = decode(sets["audio"] / row.source.path, RATE).samples
        (found,) = session.run(["probabilities"], {"waveform": samples})
        np.testing.assert_allclose(found, row.probabilities, atol=1e-3)


def test_a_search_opens_the_set_once_for_each_choice_of_slices(sets: dict[str, Path]) -> None:
    objective = TrainingObjective(sets["strip"], config_of(epochs=1, train_view="slice"))
    one, same, other = (
        objective.data_of(objective.config_of(trial, {"slices": slices}))
        for trial, slices in enumerate((2, 2, 4))
    )
    assert one is same and len(other.train) == 2 * len(one.train)
    narrow = objective.config_of(3, {"slices": 3, "image_size": 32})  # not opened before
    assert objective.parameters(narrow) == objective.parameters(objective.config)
    assert objective.terms["clips by split"] == {"train": 12, "val": 6, "test": 6}


def test_outputs_for_the_views_of_strips_are_stored_as_views(sets: dict[str, Path], tmp_path: Path) -> None:
    data = TrainingData(sets["strip"], config_of(slices=2))
    parent = data.source
    arrays = {
        (split, view): np.arange(len(parent.view(split, view)), dtype=np.float32)[:, None]
        for split in parent.splits
        for view in parent.views_of(split)
    }
    write_array_set(tmp_path / "outputs", parent, arrays, {"kind": "numbers"})
    stored = open_set(tmp_path / "outputs")
    for (split, view), values in arrays.items():
        opened, cut = stored.view(split, view), parent.view(split, view)
        np.testing.assert_array_equal(opened.gather(range(len(opened)))["npy"], values)
        assert [opened.key(i) for i in range(len(opened))] == [cut.key(i) for i in range(len(cut))]


def test_choices_of_strips_are_refused_for_finished_images(sets: dict[str, Path]) -> None:
    for changes, message in (
        ({"slices": 2}, "slices cannot be changed; build it with --layout strip"),
        ({"random_slices": True, "train_view": "slice"}, "has finished images: build it with --layout strip"),
    ):
        with pytest.raises(UsageError, match=message):
            TrainingData(sets["views"], config_of(**changes))


def test_mixed_pairs_are_weighed_by_their_own_ratio(sets: dict[str, Path]) -> None:
    config = config_of(mix_powers=1.0, label_smoothing=0.0, dropout=0.0)
    data = TrainingData(sets["strip"], config)
    learner = data.learner(dataclasses.replace(config, mix_powers=0.0), 1)
    batch = next(iter(data.train_batches(config)))
    plain = learner.training_step(batch)
    mixed = data.learner(config, 1).training_step(batch)
    assert torch.isfinite(mixed) and mixed != plain
