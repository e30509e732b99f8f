"""Views that are cut from strips equal stored ones; random slices follow from seed and epoch."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.dsp.filters import resize_matrix
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.format import manifest
from shardwave.shards.format.verify import verify
from shardwave.shards.read import cut
from shardwave.shards.read.loader import Loader
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.resident_strips import ResidentStrips
from shardwave.shards.read.stream import stream
from shardwave.shards.read.strip_view import StripView
from tests.shards.conftest import CONFIG, write_clip
from tests.shards.server import serve

SETTINGS = {**vars(CONFIG), "image_size": 20, "slices": 3, "features": True}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same clips of different lengths, as a set of views and as a set of strips."""
    folder = tmp_path_factory.mktemp("strips")
    for i in range(9):
        write_clip(folder / "audio" / f"class {i % 3}" / f"{i}.wav", i, seconds=0.2 + 0.3 * (i % 4))
    config = type(CONFIG)(**SETTINGS)
    for layout in ("views", "strip"):
        options = BuildOptions(layout=layout, workers=1, min_shards=2, val_fraction=0.3)
        build(folder / "audio", folder / layout, config, options)
    return folder / "views", folder / "strip"


def strips_of(path: Path, view: str = "slice", **choices: float) -> StripView:
    opened = open_set(path).with_views(**choices)
    samples = opened.view(opened.splits, view)
    assert isinstance(samples, StripView)
    return samples


@pytest.mark.parametrize("view", ["full", "slice", "both"])
def test_a_set_of_strips_yields_the_samples_of_a_set_of_views(both: tuple[Path, Path], view: str) -> None:
    stored, cut_set = map(open_set, both)
    one, other = stored.view(stored.splits, view), cut_set.view(cut_set.splits, view)
    assert cut_set.views == stored.views and cut_set.fields == stored.fields
    assert cut_set.fingerprint == stored.fingerprint and cut_set.set_id != stored.set_id
    for name in ("cls", "clip", "is_full"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    assert [other.meta(i) for i in range(len(other))] == [one.meta(i) for i in range(len(one))]
    assert [other.key(i) for i in range(len(other))] == [one.key(i) for i in range(len(one))]
    rows = np.random.default_rng(0).permutation(len(one))
    images, cut_images = (samples.gather(rows)["npy"].astype(int) for samples in (one, other))
    difference = np.abs(images - cut_images)
    assert difference.max() <= 1 and np.ptp(images) > 100
    vectors = [samples.gather(rows, ("features.npy",))["features.npy"] for samples in (one, other)]
    np.testing.assert_array_equal(*vectors)


def test_strips_are_smaller_and_agree_with_their_manifest(both: tuple[Path, Path]) -> None:
    sizes = [sum(entry["bytes"] for entry in manifest.entries(open_set(path).manifest)) for path in both]
    assert sizes[1] < sizes[0]
    assert verify(open_set(both[1]))["samples"] == 9


def test_stock_webdataset_reads_the_strips(both: tuple[Path, Path]) -> None:
    samples = list(
        webdataset.WebDataset(sorted(map(str, both[1].glob("*.tar"))), shardshuffle=False).decode()
    )
    frames = {sample["npy"].shape for sample in samples}
    assert len(samples) == 9 and {height for height, _ in frames} == {20} and len(frames) == 4
    assert {sample["features.npy"].shape[0] for sample in samples} == {4}


@pytest.mark.parametrize("width", [8, 16, 20, 64])
@pytest.mark.parametrize("height", [20, 32, 40])
def test_images_are_resized_as_defined(width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    strips = [rng.integers(0, 256, (height, frames), np.uint8).copy("F") for frames in (1, 2, 7, 20, 7, 90)]
    addresses = np.array([strip.ctypes.data for strip in strips])
    out = np.empty((len(strips), height, width), np.uint8)
    cut.cut(addresses, np.array([strip.shape[1] for strip in strips]), out)
    for strip, image in zip(strips, out, strict=True):
        weights = resize_matrix(strip.shape[1], width).astype(np.float64)
        exact = strip @ weights.T
        # 16-bit fixed point for 20 columns
        assert np.abs(image - exact).max() <= (0.53 if width == 20 else 0.5001)
        if width != 20 and strip.shape[1] <= width:
            np.testing.assert_array_equal(image, np.floor(exact + 0.5))
    with pytest.raises(ValueError, match="one image per address"):
        cut.cut(addresses[:2], np.array([1, 1]), out)


def test_other_slices_and_widths_need_no_new_set(both: tuple[Path, Path]) -> None:
    halves = strips_of(both[1], slices=2, image_size=12)
    assert len(halves) == 18 and halves.gather([0])["npy"].shape == (1, 20, 12)
    first = halves.strips.array(int(halves.strip[0]), "npy")
    start, stop = halves.spans[0]
    weights = resize_matrix(stop - start, 12).astype(np.float64)
    np.testing.assert_allclose(halves.gather([0])["npy"][0], first[:, start:stop] @ weights.T, atol=0.5001)
    fixed = strips_of(both[1], slice_seconds=0.5)
    lengths = np.diff(fixed.spans)[:, 0]
    assert lengths.max() == 31 and 1 <= np.bincount(fixed.clip).min() < np.bincount(fixed.clip).max()
    with pytest.raises(UsageError, match=r"features\.npy describes the slices of the build"):
        halves.gather([0], ("features.npy",))
    full = strips_of(both[1], "full", slices=2)
    assert full.gather([0], ("features.npy",))["features.npy"].shape[0] == 1
    copy = pickle.loads(pickle.dumps(halves))
    np.testing.assert_array_equal(copy.gather([3])["npy"], halves.gather([3])["npy"])


def test_random_slices_follow_from_seed_epoch_and_sample(both: tuple[Path, Path]) -> None:
    view = strips_of(both[1], "both")
    one = view.random_spans(0, 3, (0.5, 1.5))
    np.testing.assert_array_equal(one, view.random_spans(0, 3, (0.5, 1.5)))
    assert (one != view.random_spans(0, 4, (0.5, 1.5))).any() and (
        one != view.random_spans(1, 3, (0.5, 1.5))
    ).any()
    np.testing.assert_array_equal(one[view.is_full], view.spans[view.is_full])
    frames = view.strips.counts["npy"][view.strip]
    assert (one[:, 0] >= 0).all() and (one[:, 1] <= frames).all()
    lengths, nominal = np.diff(one)[:, 0], np.diff(view.spans)[:, 0]
    assert (np.abs(lengths - nominal) <= np.ceil(nominal / 2)).all() and (lengths != nominal).any()
    unstretched = view.random_spans(0, 3)
    np.testing.assert_array_equal(np.diff(unstretched), np.diff(view.spans))


def test_every_start_of_a_random_slice_is_drawn(both: tuple[Path, Path]) -> None:
    view = strips_of(both[1])
    i = int(np.argmax(view.strips.counts["npy"][view.strip]))
    starts = {int(view.random_spans(0, epoch)[i, 0]) for epoch in range(2_000)}
    last = view.strips.counts["npy"][view.strip[i]] - np.diff(view.spans[i])[0]
    assert starts == set(range(last + 1))


@pytest.mark.parametrize("resident", [False, True])
def test_a_loader_draws_slices_anew_for_any_number_of_ranks(both: tuple[Path, Path], resident: bool) -> None:
    view = strips_of(both[1])
    source = ResidentStrips(view) if resident else view

    def epoch(number: int, ranks: int, skipped: int = 0) -> dict[int, np.ndarray]:
        images = {}
        for rank in range(ranks):
            loader = Loader(
                source, 6 // ranks, shuffle=True, rank=rank, world_size=ranks, pad=False, prefetch=rank,
                spans=lambda each: view.random_spans(7, each, (0.8, 1.25)),
            )  # fmt: skip
            loader.set_epoch(number)
            if skipped:
                loader.load_state_dict({**loader.state_dict(), "batches": skipped})
            for batch in loader:
                images |= zip(batch["index"].tolist(), batch["npy"].numpy().copy(), strict=True)
        return images

    whole, shared = epoch(1, 1), epoch(1, 3)
    assert whole.keys() == shared.keys() == set(range(len(view)))
    assert all((whole[i] == shared[i]).all() for i in whole)
    assert any((whole[i] != other).any() for i, other in epoch(2, 1).items())
    rest = epoch(1, 1, skipped=2)
    assert len(rest) == len(view) - 12 and all((whole[i] == image).all() for i, image in rest.items())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("image_size", [None, 8])
def test_resident_strips_are_cut_as_on_the_host(
    both: tuple[Path, Path], device: str, image_size: int | None
) -> None:
    view = strips_of(both[1], "both", **({} if image_size is None else {"image_size": image_size}))
    rows = np.random.default_rng(1).permutation(len(view))
    copy = ResidentStrips(view, device)
    for spans in (None, view.random_spans(0, 0, (0.5, 2))[rows]):
        batch = copy.fetch(rows, spans)
        expected = view.gather(rows, spans=spans)["npy"].astype(int)
        difference = np.abs(batch["npy"].cpu().numpy() - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # sums in another order
        np.testing.assert_array_equal(batch["cls"].cpu().numpy(), view.cls[rows])


def test_a_set_at_a_url_keeps_its_slices_in_other_processes(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDWAVE_CACHE", str(tmp_path))
    with serve(both[1]) as server:
        opened = open_set(server.url).with_views(slices=2, image_size=8)
        view = pickle.loads(pickle.dumps(opened.view("train", "slice")))
        local = open_set(both[1]).with_views(slices=2, image_size=8).view("train", "slice")
        np.testing.assert_array_equal(view.gather([0, 1])["npy"], local.gather([0, 1])["npy"])
        samples = list(stream(server.url, "train", "strip", shuffle=0))
        assert {np.asarray(sample["npy"]).shape[0] for sample in samples} == {20}
        with pytest.raises(UsageError, match="has strips, from which open_set cuts the views"):
            stream(server.url, "train", "slice")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"image_size": 24}, "image_size must be at most 20, the size of the frequency axis"),
        ({"image_size": 10}, "image_size must be a multiple of 4"),
        ({"slice_seconds": 2.0}, "slice_seconds must be at most 1.1, the length of the longest clip"),
        ({"slices": -1}, "slices must lie between 0 and 1000"),
    ],
)
def test_invalid_choices_are_refused(
    both: tuple[Path, Path], choices: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_set(both[1]).with_views(**choices)


def test_finished_images_cannot_be_cut_otherwise(both: tuple[Path, Path]) -> None:
    opened = open_set(both[0])
    assert opened.with_views() is opened
    with pytest.raises(UsageError, match="has finished images: slices, image_size cannot be changed"):
        opened.with_views(slices=2, image_size=8)
    with pytest.raises(ValueError, match="spans need a set that was built with --layout strip"):
        opened.view("train", "slice").gather([0], spans=np.array([[0, 1]]))
    view = strips_of(both[1])
    for span in ([-1, 3], [2, 2], [0, 10_000]):
        with pytest.raises(ValueError, match="spans must be frames of the clips"):
            view.gather([0], spans=np.array([span]))


def test_a_strip_in_another_order_or_with_other_vectors_is_found(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(both[1], copied)
    contents = open_set(copied).manifest
    field = {"dtype": "uint8", "shape": [20, 20]}
    for fields in ({**contents["fields"], "npy": field}, {"cls": contents["fields"]["cls"]}):
        (copied / "manifest.json").write_text(json.dumps({**contents, "fields": fields}))
        with pytest.raises(ShardwaveError, match="strips|lacks"):
            open_set(copied)
