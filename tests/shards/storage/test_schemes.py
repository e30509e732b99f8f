"""A set's location may come from anybody: none of them runs a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwave import cli
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.stream import stream
from shardwave.shards.storage.any_path import as_path
from shardwave.shards.storage.remote import open_url

SCHEMES = (
    "pipe", "PIPE", "ftp", "sftp", "ssh", "github", "zip", "tar", "simplecache", "filecache",
    "local", "data", "dask", "hf", "reference", "smb", "webhdfs", "arrow_hdfs",
    "jupyter", "libarchive", "git", "nosuch",
)  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_schemes_are_refused_everywhere(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}://touch {tmp_path}/ran"
    for use in (
        lambda: as_path(url),
        lambda: open_url(url),
        lambda: open_set(url),
        lambda: stream(url, "train"),
        lambda: verify(open_set(url)),
        lambda: build(url, tmp_path / "set", SpectrogramConfig(), BuildOptions()),
        lambda: build(tmp_path, url, SpectrogramConfig(), BuildOptions()),
        lambda: build(tmp_path, tmp_path / "set", SpectrogramConfig(), BuildOptions(labels=url)),
    ):
        with pytest.raises(
            UsageError, match=r"a URL's scheme must be one of file, http, https, s3.*, got " + scheme.lower()
        ):
            use()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "url", ["s3://bucket/set::pipe://touch ran", "file://x::s3://b", "s3://a::zip://b/c", "gs://::memory://"]
)
def test_chains_are_refused(url: str) -> None:
    for use in (lambda: as_path(url), lambda: open_url(url), lambda: open_set(url)):
        with pytest.raises(UsageError, match="a URL with :: is refused"):
            use()


def test_what_looks_like_a_command_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for location in ("pipe:touch ran", "pipe:touch ran;", "-", "file:x", "simplecache::s3://b/c"):
        with pytest.raises(ShardwaveError):
            stream(location, "train")
        with pytest.raises(ShardwaveError):
            open_set(location)
    assert not list(tmp_path.iterdir())
    from shardwave.shards.read.stream import Stream

    assert (
        len(list(Stream(["pipe:touch ran; head -c 10240 /dev/zero"], shuffle=0))) == 0
    )  # what the program itself names is run
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "pipe://touch ran"],
        ["inspect", "pipe://touch ran"],
        ["shard", "pipe://touch ran", "--out", "x"],
        ["shard", ".", "--out", "pipe://touch ran"],
        ["shard", ".", "--labels", "pipe://touch ran", "--out", "x"],
        ["train", "pipe://touch ran", "--model", "mlp", "--out", "x"],
        ["search", "pipe://touch ran", "--model", "mlp", "--backend", "random", "--out", "x"],
        ["predict", "x", "pipe://touch ran", "--out", "x.csv"],
        ["evaluate", "x", "pipe://touch ran"],
        ["fetch", "fsdd", "--out", "x", "--url", "pipe://touch ran"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_refuse_them_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["shardwave", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and told[-1].startswith("error: ") and "pipe" in told[-1]
    assert not (tmp_path / "ran").exists()
