"""Sets in an object store: every command that takes a SET takes its URL."""

from __future__ import annotations

import csv
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardwave import cli
from shardwave.common.errors import ShardwaveError
from tests.models.conftest import write_images


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A set in a bucket of an S3 server on this machine, by its URL; an empty cache."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_CONFIG_FILE": "/nowhere",
        "SHARDWAVE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()  # they keep the address of the server they first saw
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("sounds")
    store.put(
        f"{write_images(tmp_path / 'made', ['train', 'val', 'test'], clips=4)}/",
        "sounds/small/",
        recursive=True,
    )
    yield "s3://sounds/small"
    urllib.request.urlopen(
        urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    ).close()
    server.stop()
    fsspec.filesystem("s3").clear_instance_cache()


def run(*arguments: str | Path) -> dict[str, Any]:
    """The command's result, in this process: imports cost seconds."""
    return cli.main_group.main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.slow
def test_every_command_takes_a_url(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("verify", bucket)["samples"] == 48
    summary = run("inspect", bucket)
    assert summary["path"] == bucket and summary["clips"] == 12
    mlp = ("--model", "mlp", "--epochs", "2", "--hidden-size", "8", "--device", "cpu")
    trained = run("train", bucket, *mlp, "--out", tmp_path / "run")
    local = run("train", tmp_path / "made", *mlp, "--out", tmp_path / "local")
    assert trained["set"] == json.loads((tmp_path / "run/result.json").read_text())["set"] == bucket
    assert trained["scores"] == local["scores"]
    assert run("evaluate", tmp_path / "run", bucket, "--device", "cpu")["set"] == bucket
    assert (
        run("predict", tmp_path / "run", bucket, "--out", tmp_path / "classes.csv", "--device", "cpu")[
            "clips"
        ]
        == 12
    )
    assert len(list(csv.reader((tmp_path / "classes.csv").open()))) == 13
    searched = run(
        "search", bucket, "--model", "mlp", "--backend", "random", "--trials", "2", "--epochs", "2",
        "--jobs", "1", "--device", "cpu", "--out", tmp_path / "search",
    )  # fmt: skip
    assert (
        searched["set"] == bucket
        and searched["states"] == {"COMPLETE": 2}
        and (tmp_path / "search/checkpoint.ckpt").exists()
    )
    with pytest.raises(ShardwaveError, match="s3://sounds/none/manifest.json does not exist"):
        run("verify", "s3://sounds/none")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(ShardwaveError, match="s3://sounds/small/manifest.json: Unable to locate credentials"):
        run("verify", bucket)
