"""Others read our shards: stock webdataset pipelines, DALI's reader, plain tar and NumPy."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from shardwave.shards.format.shard_writer import ShardWriter
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import View


@pytest.fixture(scope="module")
def view(built: Path) -> View:
    return open_set(built).view("train", "slice")


@pytest.fixture(scope="module")
def tars(built: Path) -> list[str]:
    return [str(path) for path in sorted(built.glob("train-slice-*.tar"))]


def test_a_stock_webdataset_pipeline(view: View, tars: list[str]) -> None:
    samples = list(
        webdataset.WebDataset(tars, shardshuffle=False).decode().to_tuple("__key__", "npy", "cls", "json")
    )
    assert len(samples) == len(view) == 54
    expected = view.gather(np.arange(54))["npy"]
    for i, (key, image, cls, meta) in enumerate(samples):
        assert key == view.key(i) and cls == view.cls[i] and meta == view.meta(i)
        assert image.dtype == np.uint8 and (image == expected[i]).all()


def test_a_stock_pipeline_shuffled_and_batched_under_security(view: View, tars: list[str]) -> None:
    """The usual way, with WDS_SECURE=1, which forbids pickles and pipes."""
    program = """
import sys, webdataset
pipeline = webdataset.WebDataset(sys.argv[1:], shardshuffle=10).shuffle(20).decode()
pipeline = pipeline.to_tuple("npy", "cls", "json").batched(8)
batches = list(pipeline)
print(sum(len(cls) for _, cls, _ in batches), batches[0][0].shape, batches[0][0].dtype)
"""
    secure = {**os.environ, "WDS_SECURE": "1"}
    done = subprocess.run([sys.executable, "-c", program, *tars], env=secure, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "54 (8, 32, 32) uint8", done.stderr


def test_features_decode_in_a_stock_pipeline(tmp_path: Path) -> None:
    writer = ShardWriter(
        tmp_path, "train", "full", 0, {"npy": ("uint8", (4, 4)), "features.npy": ("float32", (3,))}
    )
    features = np.array([1, 2, 3], np.float32)
    writer.add(
        "000000_a", -1, 0, {"label": None}, {"npy": np.zeros((4, 4), np.uint8), "features.npy": features}
    )
    writer.close()
    writer.publish()
    (sample,) = webdataset.WebDataset(str(tmp_path / "train-full-0000.tar"), shardshuffle=False).decode()
    assert (
        (sample["features.npy"] == features).all()
        and sample["cls"] == -1
        and sample["json"] == {"label": None}
    )


def test_dali_reads_them_by_our_index(view: View, tars: list[str]) -> None:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def, types

    @pipeline_def(batch_size=9, num_threads=1, device_id=None)
    def reading():  # type: ignore[no-untyped-def]
        paths = [tar.removesuffix(".tar") + ".idx" for tar in tars]
        kinds = [types.UINT8] * 3
        return (
            *fn.readers.webdataset(
                paths=tars, index_paths=paths, ext=["npy", "cls", "json"], name="reader", dtypes=kinds
            ),
        )

    pipeline = reading()
    pipeline.build()
    assert pipeline.epoch_size("reader") == 54
    expected = view.gather(np.arange(54))["npy"]
    for start in range(0, 54, 9):
        images, classes, metas = pipeline.run()
        for j in range(9):
            assert (np.load(io.BytesIO(np.array(images[j]).tobytes())) == expected[start + j]).all()
            assert int(np.array(classes[j]).tobytes()) == view.cls[start + j]
            assert b'"view": "slice"' in np.array(metas[j]).tobytes()


def test_dali_would_make_the_same_index(tars: list[str], tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx")
    for number, tar in enumerate(tars):
        with wds2idx.IndexCreator(tar, str(tmp_path / f"{number}.idx"), verbose=False) as creator:
            creator.create_index()
        assert (tmp_path / f"{number}.idx").read_text() == Path(tar).with_suffix(".idx").read_text()


def test_plain_tar_and_numpy_read_them(view: View, tars: list[str]) -> None:
    with tarfile.open(tars[0]) as archive:
        first = archive.extractfile(archive.getnames()[0])
        assert first is not None
        assert (np.load(io.BytesIO(first.read()), allow_pickle=False) == view.gather([0])["npy"][0]).all()
    assert subprocess.run(["tar", "-tf", tars[0]], capture_output=True, check=True).stderr == b""


def test_data_lie_aligned(built: Path) -> None:
    from shardwave.shards.format import index
    from shardwave.shards.format.layout import NPY_HEADER

    for path in built.glob("*.index"):
        assert ((index.read(path).offset["npy"] + NPY_HEADER) % 64 == 0).all()
