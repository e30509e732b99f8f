"""The report shows what the network looked at in its errors, and states why if it cannot."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shardwave.bench.report import explain
from shardwave.bench.report.attributions import ErrorSamples, stitched
from shardwave.bench.report.blocks import Block, Gallery, Table, Text
from shardwave.bench.report.page import rendered
from shardwave.bench.report.pictures import GAP, PIXELS
from shardwave.models.evaluation.clip_csv import misclassified, read_held_out
from shardwave.models.runs import checkpoint, result
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.shards.read.open_set import open_set
from tests.models.conftest import write_images
from tests.planted import PLACE, SIZE, write_planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on a set with a shortcut that fails in the test split."""
    out = tmp_path_factory.mktemp("attributions")
    write_planted(out / "set", slices=2)
    for name, model, view in (("cnn", "cnn", "full"), ("slices", "cnn", "slice"), ("mlp", "mlp", "full")):
        config = defaults(model, epochs=8, batch_size=16, device="cpu", train_view=view)
        train(out / "set", config, out / name)
    return out


def _heat_maps(blocks: list[Block]) -> Gallery:
    return next(each for each in blocks if isinstance(each, Gallery) and each.title.startswith("Heat maps"))


@pytest.mark.parametrize(("name", "width"), [("cnn", 1.0), ("slices", 0.5)])
def test_the_planted_spot_is_bright_in_the_errors(folder: Path, name: str, width: float) -> None:
    blocks = explain.blocks(folder / name, result.read(folder / name))
    pictures = _heat_maps(blocks).pictures
    wrongly_rain = [picture for picture in pictures if picture.lines[1].startswith("predicted rain")]
    assert wrongly_rain, "the shortcut causes errors"
    for picture in wrongly_rain:
        assert picture.lines[2].startswith("label bell, 0.")
        kind, _, content = picture.source.partition(",")
        assert kind == "data:image/jpeg;base64" and len(content) < 40_000
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))), np.float32)
        assert pixels.shape == (PIXELS, 2 * PIXELS + GAP, 3)
        red = pixels[::-1, PIXELS + GAP :, 0] - pixels[::-1, PIXELS + GAP :, 2]  # heat is red, sound is grey
        rows, columns = (np.array((each.start, each.stop)) * PIXELS // SIZE for each in PLACE)
        columns = (columns * width).astype(int)  # the first slice is the first half of the clip
        inside = np.clip(red[slice(*rows), slice(*columns)], 20, None).mean()
        outside = np.clip(red, 20, None)
        outside[slice(*rows), slice(*columns)] = 20
        assert inside > 3 * outside.mean()


def test_the_features_of_the_shortcut_are_named(folder: Path) -> None:
    blocks = explain.blocks(folder / "mlp", result.read(folder / "mlp"))
    table = next(each for each in blocks if isinstance(each, Table) and each.caption.startswith("Inputs of"))
    assert list(table.head[3:]) == ["without hum", "without mfcc"]
    rows = [row for row in table.rows if row[1].startswith("predicted rain")]
    assert rows and all(float(row[3]) < float(row[1].rsplit(" ", 1)[1]) - 0.2 for row in rows)


def test_the_page_holds_the_heat_maps(folder: Path) -> None:
    markdown, page = rendered([folder / "cnn", folder / "mlp"])
    assert page.count('src="data:image/jpeg;base64,') > 0 and len(page) < 2_000_000
    assert "Heat maps of the most confident errors" in markdown and "without hum" in markdown


@pytest.mark.parametrize("missing", ["set", "checkpoint"])
def test_the_report_states_why_there_are_no_heat_maps(folder: Path, tmp_path: Path, missing: str) -> None:
    run = Path(shutil.copytree(folder / "cnn", tmp_path / "run"))
    fields = dict(result.read(run))
    if missing == "set":
        fields["set"], reason = str(tmp_path / "nowhere"), "nowhere"
    else:
        (run / checkpoint.NAME).unlink()
        reason = f"has no {checkpoint.NAME}"
    texts = [block.text for block in explain.blocks(run, fields) if isinstance(block, Text)]
    (line,) = [text for text in texts if text.startswith("The errors are not explained by heat maps: ")]
    assert reason in line and "\n" not in line


def test_errors_of_a_cross_validation_are_explained_by_the_network_of_their_fold(tmp_path: Path) -> None:
    shard_set = write_images(tmp_path / "set", ["fold1", "fold2", "fold3"])
    train(shard_set, defaults("mlp", epochs=1, folds="all", device="cpu"), tmp_path / "run")
    rows, classes = read_held_out(tmp_path / "run")
    samples = ErrorSamples(tmp_path / "run", open_set(shard_set))
    for row in rows:
        assert samples.has(row)
        view, places = samples.scored(row)
        values = torch.from_numpy(view.gather(places, ("features.npy",))["features.npy"])
        with torch.inference_mode():
            probabilities = samples.trained(row).network(values).softmax(1).mean(0)
        np.testing.assert_allclose(probabilities, row.probabilities, atol=1e-5)
    markdown, _ = rendered([tmp_path / "run"])
    assert ("Inputs of the most confident errors" in markdown) == bool(misclassified(rows, classes))


def test_slices_are_joined_at_their_places() -> None:
    maps = np.ones((2, 3, 8), np.float32) * np.array([1, 2], np.float32)[:, None, None]
    full = {"start": 10.0, "length": 4.0}
    metas = [{"start": 10.0, "length": 2.0}, {"start": 11.0, "length": 2.0}]
    joined = stitched(maps, metas, full)  # type: ignore[arg-type]
    assert joined[0].tolist() == [1, 1, 2, 2, 2, 2, 0, 0]
