"""Downloads and archives from a local server that is slow, cuts or refuses, and hostile archives."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.sources import fetch, known
from shardwave.shards.sources.download import download
from shardwave.shards.sources.extract import extract
from shardwave.shards.sources.known.data_set import Remote

DATA = bytes(range(256)) * 4_000  # about 1 MB
SHA = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; the attributes say how it misbehaves, `requests` what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/data.bin": DATA}
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.cut: list[int] = []  # bytes after which the next connections are cut
        self.failures: list[int] = []  # statuses of the next answers
        self.pause = 0.0  # seconds before every 64 KiB
        self.ranges = True
        self.etag: str | None = '"v1"'
        self.length = True  # send Content-Length

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        if server.failures:
            self.send_error(server.failures.pop(0))
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        body = server.files[self.path]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if self.headers.get("If-Range") not in (None, server.etag):
            start = 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.length:
            self.send_header("Content-Length", str(len(body) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        sent = body[start:]
        stop = server.cut.pop(0) if server.cut else len(sent)
        for offset in range(0, min(stop, len(sent)), 1 << 16):
            time.sleep(server.pause)
            try:
                self.wfile.write(sent[offset : min(offset + (1 << 16), stop)])
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(server: Server, target: Path, **options: object) -> Path:
    return download(f"{server.url}/data.bin", target, SHA, **{"pause": 0.01, "timeout": 2.0, **options})  # type: ignore[arg-type]


def test_download_verifies_and_leaves_only_the_file(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "a" / "data.bin").read_bytes() == DATA
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["data.bin"]


def test_a_slow_server_is_waited_for(server: Server, tmp_path: Path) -> None:
    server.pause = 0.03
    assert get(server, tmp_path / "data.bin", timeout=1.0).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_server_that_stalls_is_given_up_with_a_reason(server: Server, tmp_path: Path) -> None:
    server.pause = 1.0
    with pytest.raises(ShardwaveError, match=r"given up after 1 retries .*; run the command again"):
        get(server, tmp_path / "data.bin", timeout=0.1, attempts=2)
    assert not (tmp_path / "data.bin").exists()


def test_cut_off_connections_are_continued_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 300_000, 1]
    assert get(server, tmp_path / "data.bin").read_bytes() == DATA
    assert [asked for _, asked in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=600001-",
    ]


def test_a_later_run_continues(server: Server, tmp_path: Path) -> None:
    server.cut = [500_000]
    with pytest.raises(ShardwaveError, match=r"cut after 0\.5 of 1\.0 MB"):
        get(server, tmp_path / "data.bin", attempts=1)
    assert get(server, tmp_path / "data.bin").read_bytes() == DATA
    assert server.requests[-1] == ("/data.bin", "bytes=500000-")


@pytest.mark.parametrize("change", ["etag", "ranges", "shorter", "no validator"])
def test_nothing_is_spliced_from_two_files(server: Server, tmp_path: Path, change: str) -> None:
    """Whatever the server does between two runs, the result is the new file as a whole."""
    if change == "no validator":
        server.etag = None
    server.cut = [500_000]
    with pytest.raises(ShardwaveError):
        get(server, tmp_path / "data.bin", attempts=1)
    new = DATA[::-1][: 400_000 if change == "shorter" else None]
    server.files["/data.bin"] = new
    if change != "no validator":
        server.etag = '"v2"'
    if change == "ranges":
        server.ranges = False
    result = download(
        f"{server.url}/data.bin", tmp_path / "data.bin", hashlib.sha256(new).hexdigest(), pause=0.01
    )
    assert result.read_bytes() == new


def test_without_content_length(server: Server, tmp_path: Path) -> None:
    server.length = False
    assert get(server, tmp_path / "data.bin").read_bytes() == DATA


def test_wrong_checksum_removes_the_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError, match=f"expected sha256 {'0' * 64}, got {SHA}") as caught:
        download(f"{server.url}/data.bin", tmp_path / "data.bin", "0" * 64)
    assert caught.value.exit_status == 1 and not list(tmp_path.iterdir())


def test_404_is_final_and_503_is_not(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError, match="404 Not Found.*--from"):
        download(f"{server.url}/absent", tmp_path / "absent")
    assert len(server.requests) == 1
    server.failures = [503, 500, 429]
    assert get(server, tmp_path / "data.bin").read_bytes() == DATA
    assert len(server.requests) == 5


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError, match="no connection"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, pause=0.01)
    with pytest.raises(UsageError, match="http"):
        download("file:///etc/passwd", tmp_path / "x")


def test_a_killed_download_is_continued(server: Server, tmp_path: Path) -> None:
    server.pause = 0.2
    code = (
        "import sys, pathlib; from shardwave.shards.sources import download as d; "
        "d.download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, f"{server.url}/data.bin", str(tmp_path / "data.bin")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()})
    part = tmp_path / ".data.bin.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "data.bin").exists()
    server.pause = 0.0
    assert get(server, tmp_path / "data.bin").read_bytes() == DATA
    asked = server.requests[-1][1]
    assert asked is not None and int(asked.removeprefix("bytes=").rstrip("-")) > 100_000


def test_two_runs_into_one_folder(server: Server, tmp_path: Path) -> None:
    server.pause = 0.05
    errors: list[ShardwaveError] = []

    def run() -> None:
        try:
            get(server, tmp_path / "data.bin")
        except ShardwaveError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "data.bin").read_bytes() == DATA
    assert len(errors) == 1 and "another run" in str(errors[0])


# --- archives


def tar_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("a/../../evil"),
        member("a/evil", tarfile.SYMTYPE, "../../evil"),
        member("a/evil", tarfile.SYMTYPE, "/etc/passwd"),
        member("evil", tarfile.LNKTYPE, "../evil"),
        member("evil", tarfile.CHRTYPE),
        member("evil", tarfile.BLKTYPE),
        member("evil", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}-{info.linkname}",
)
def test_hostile_tars_are_refused_whole(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = tar_of(tmp_path / "bad.tar.gz", [(member("good.wav"), b"good"), (bad, b"")])
    out = tmp_path / "deep" / "out"
    with pytest.raises(ShardwaveError, match="refused"):
        extract(archive, out)
    assert not list(out.iterdir())
    assert {path.name for path in tmp_path.rglob("*")} == {"bad.tar.gz", "deep", "out"}


def test_hostile_zips_and_absolute_names_stay_in_the_folder(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for name in ("good.wav", "../evil", "/evil2", "a/../../evil3", link):
            zipped.writestr(name, b"/etc/passwd")
    extract(tmp_path / "x.zip", tmp_path / "deep" / "zip")
    absolute = f"{tmp_path}/evil4"
    members = [(member(name), b"") for name in (absolute, "C:/evil5", "a\\..\\evil6")]
    extract(tar_of(tmp_path / "x.tar", members), tmp_path / "deep" / "tar")
    assert (tmp_path / "deep" / "tar" / absolute[1:]).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"x.zip", "x.tar", "deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"zip", "tar"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert (tmp_path / "deep" / "zip" / "good.wav").is_file()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_good_tars(tmp_path: Path, mode: str) -> None:
    members = [
        (member("./top", tarfile.DIRTYPE), b""),
        (member("./top/a.wav"), b"aaa"),
        (member("./top/b/copy.wav", tarfile.SYMTYPE, "../a.wav"), b""),
        (member("hard.wav", tarfile.LNKTYPE, "./top/a.wav"), b""),
    ]
    extract(tar_of(tmp_path / "x.tar", members, mode), tmp_path / "out")
    for name in ("top/a.wav", "top/b/copy.wav", "hard.wav"):
        file = tmp_path / "out" / name
        assert file.read_bytes() == b"aaa" and not file.is_symlink()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["hard.wav", "top"]


def test_damaged_and_foreign_archives(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "x.tar.gz", [(member("a.wav"), os.urandom(200_000))]).read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        zipped.writestr("a.wav", b"a" * 1000)
    flipped = bytearray((tmp_path / "x.zip").read_bytes())
    flipped[500] ^= 1
    for name, content, message in [
        ("cut.tar.gz", whole[:100_000], "damaged archive"),
        ("flipped.zip", bytes(flipped), "damaged archive"),
        ("page.tar.gz", b"<!DOCTYPE html><html>moved</html>", "a web page"),
        ("noise.zip", os.urandom(1000), "neither a tar nor a zip"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ShardwaveError, match=message):
            extract(tmp_path / name, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "links",
    [
        {"a.wav": "a.wav"},
        {"a.wav": "b.wav", "b.wav": "a.wav"},
        {"a.wav": "./a.wav"},
        {"d/a.wav": "../d/a.wav"},
        {"x.wav": "a.wav", "a.wav": "b.wav", "b.wav": "a.wav"},
    ],
)
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_circle_are_refused(tmp_path: Path, links: dict[str, str], kind: bytes) -> None:
    if kind == tarfile.LNKTYPE:
        links = {name: target.removeprefix("../") for name, target in links.items()}
    archive = tar_of(
        tmp_path / "x.tar",
        [(member("good.wav"), b"good"), *((member(n, kind, t), b"") for n, t in links.items())],
    )
    with pytest.raises(ShardwaveError, match="links to .*, which is not in the archive"):
        extract(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_links_over_links_and_to_what_comes_later(tmp_path: Path) -> None:
    members = [
        (member("one.wav", tarfile.SYMTYPE, "two.wav"), b""),
        (member("two.wav", tarfile.SYMTYPE, "deep/three.wav"), b""),
        (member("folder", tarfile.SYMTYPE, "deep"), b""),
        (member("deep/three.wav"), b"three"),
    ]
    extract(tar_of(tmp_path / "x.tar", members), tmp_path / "out")
    assert (
        (tmp_path / "out" / "one.wav").read_bytes() == (tmp_path / "out" / "two.wav").read_bytes() == b"three"
    )
    with pytest.raises(ShardwaveError, match="a.wav links to b.wav, which is not in the archive"):
        extract(
            tar_of(tmp_path / "y.tar", [(member("a.wav", tarfile.SYMTYPE, "b.wav"), b"")]), tmp_path / "out2"
        )


def test_what_lies_in_the_folder_is_never_touched(tmp_path: Path) -> None:
    """A folder of the user's that had the name of one in the archive was deleted."""
    archive = tar_of(tmp_path / "x.tar", [(member("audio/a.wav"), b"a"), (member("meta/m.csv"), b"m")])
    out = tmp_path / "out"
    (out / "audio").mkdir(parents=True)
    (out / "audio" / "thesis.txt").write_text("all of it")
    with pytest.raises(
        ShardwaveError, match="out/audio already exists and differs from the one in x.tar: move it away"
    ):
        extract(archive, out)
    assert sorted(path.name for path in out.rglob("*")) == ["audio", "thesis.txt"]
    (out / "audio").rename(tmp_path / "mine")
    (out / "audio").symlink_to(tmp_path / "mine")
    with pytest.raises(ShardwaveError, match="already exists"):
        extract(archive, out)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (out / "audio").unlink()
    extract(archive, out)
    (out / "meta" / "m.csv").unlink()
    (out / "meta").rmdir()  # as if it had been killed between the two
    (out / "audio" / "note.txt").write_text("mine")
    extract(archive, out)
    assert (out / "meta" / "m.csv").exists() and (out / "audio" / "note.txt").exists()


def test_what_a_killed_process_unpacked_is_removed(tmp_path: Path) -> None:
    (tmp_path / "out" / ".unpacking-abcdefgh").mkdir(mode=0o700, parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "out" / ".unpacking-linklink").symlink_to(tmp_path / "home")
    extract(tar_of(tmp_path / "x.tar", [(member("a.wav"), b"a")]), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".unpacking-linklink", "a.wav"]
    assert (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def archive(sizes: list[int]) -> Path:
        path = tmp_path / f"x.{kind}"
        if kind == "tar":
            return tar_of(path, [(member(f"{i}.wav"), bytes(size)) for i, size in enumerate(sizes)])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for i, size in enumerate(sizes):
                zipped.writestr(f"{i}.wav", bytes(size))
        return path

    monkeypatch.setattr("shardwave.shards.sources.extract.MAX_BYTES", 1 << 20)
    monkeypatch.setattr("shardwave.shards.sources.extract.MAX_FILES", 10)
    extract(archive([1 << 19, 1 << 19]), tmp_path / "most")
    assert len(list((tmp_path / "most").iterdir())) == 2
    for sizes in ([(1 << 20) + 1], [1 << 19, 1 << 19, 1], [0] * 11):
        with pytest.raises(ShardwaveError, match="refused, it contains more than 10 files or 0 GiB"):
            extract(archive(sizes), tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


def test_a_size_that_is_only_claimed_takes_no_space(tmp_path: Path) -> None:
    claimed = tarfile.TarInfo("a.wav")
    claimed.size = 1 << 60
    (tmp_path / "x.tar").write_bytes(claimed.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(ShardwaveError, match="refused, it contains more than"):
        extract(tmp_path / "x.tar", tmp_path / "out")


# --- a whole fetch


def tone(seconds: float = 0.05) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(int(seconds * 8_000) * 2))
    return buffer.getvalue()


@pytest.fixture
def fsdd_tar(tmp_path: Path) -> bytes:
    names = [
        f"fsdd-1.0.10/recordings/{digit}_{who}_{n}.wav"
        for digit in range(10)
        for who in ("ann", "bob")
        for n in (0, 7)
    ]
    return tar_of(tmp_path / "fsdd.tar.gz", [(member(name), tone()) for name in names]).read_bytes()


def small(server: Server, clips: int = 40, sha256: str | None = None) -> known.data_set.DataSet:  # type: ignore[name-defined]
    return dataclasses.replace(
        known.get("fsdd"), clips=clips, remotes=(Remote(f"{server.url}/fsdd.tar.gz", sha256),)
    )


def test_fetch_downloads_checks_unpacks_and_labels(
    server: Server, tmp_path: Path, fsdd_tar: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files["/fsdd.tar.gz"] = fsdd_tar
    out = tmp_path / "out"
    result = fetch.fetch_data_set(small(server, sha256=hashlib.sha256(fsdd_tar).hexdigest()), out)
    told = capfd.readouterr().err
    assert "CC BY-SA 4.0" in told and "Jackson" in told and "github.com/Jakobovski" in told
    assert (
        result["clips"] == 40
        and result["splits"] == {"test": 20, "train": 20}
        and "verified" in result["checksum"]
    )
    rows = list(csv.DictReader(io.StringIO((out / "labels.csv").read_text())))
    assert set(rows[0]) == {"path", "label", "split"}
    assert all((out / row["path"]).is_file() for row in rows)
    assert all((row["split"] == "test") == ("_0.wav" in row["path"]) for row in rows)
    assert not (out / "free-spoken-digit-dataset.tar.gz").exists()
    again = fetch.fetch_data_set(small(server), out, split="speaker")  # nothing is downloaded twice
    assert len(server.requests) == 1 and again["groups"] == 2 and "splits" not in again


def test_fetch_tries_the_next_place(server: Server, tmp_path: Path, fsdd_tar: bytes) -> None:
    server.files["/fsdd.tar.gz"] = fsdd_tar
    server.files["/page"] = b"<html>gone</html>"
    places = tuple(Remote(f"{server.url}/{name}") for name in ("absent", "page", "fsdd.tar.gz"))
    result = fetch.fetch_data_set(dataclasses.replace(small(server), remotes=places), tmp_path / "out")
    assert result["clips"] == 40 and "no published checksum" in result["checksum"]


def test_a_place_without_a_checksum_is_held_against_the_published_one(
    server: Server, tmp_path: Path, fsdd_tar: bytes
) -> None:
    server.files["/mirror.tar.gz"] = fsdd_tar
    for published, said in (
        (hashlib.sha256(fsdd_tar).hexdigest(), "verified"),
        ("0" * 64, f"is not the published {'0' * 64}"),
    ):
        places = (Remote(f"{server.url}/mirror.tar.gz"), Remote(f"{server.url}/absent.tar.gz", published))
        result = fetch.fetch_data_set(dataclasses.replace(small(server), remotes=places), tmp_path / said[:8])
        assert result["clips"] == 40 and said in result["checksum"]
        assert (fetch.COUNTED in result["checksum"]) == (said != "verified")


def test_without_a_checksum_the_count_is_checked(server: Server, tmp_path: Path, fsdd_tar: bytes) -> None:
    server.files["/fsdd.tar.gz"] = fsdd_tar
    with pytest.raises(ShardwaveError, match="40 clips, the published fsdd has 3000"):
        fetch.fetch_data_set(small(server, clips=3_000), tmp_path / "out")
    assert not (tmp_path / "out" / "labels.csv").exists()


def test_url_keeps_the_published_checksum_unless_told(
    server: Server, tmp_path: Path, fsdd_tar: bytes
) -> None:
    server.files["/mirror.tar.gz"] = fsdd_tar
    data_set = small(server, sha256="0" * 64)
    with pytest.raises(ShardwaveError, match="wrong checksum"):
        fetch.fetch_data_set(data_set, tmp_path / "out", url=f"{server.url}/mirror.tar.gz")
    stated = hashlib.sha256(fsdd_tar).hexdigest()
    result = fetch.fetch_data_set(
        data_set, tmp_path / "out", url=f"{server.url}/mirror.tar.gz#sha256={stated}"
    )
    assert result["clips"] == 40 and stated in result["checksum"]


def test_hostile_archive_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/fsdd.tar.gz"] = tar_of(tmp_path / "x", [(member("../evil.wav"), b"evil")]).read_bytes()
    with pytest.raises(
        ShardwaveError,
        match="refused, '../evil.wav' would be extracted to .*, which is outside the destination",
    ):
        fetch.fetch_data_set(small(server), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "evil.wav").exists()


def test_from_folder_and_from_archive(tmp_path: Path, fsdd_tar: bytes) -> None:
    by_archive = fetch.fetch("fsdd", tmp_path / "a", source=tmp_path / "fsdd.tar.gz")
    assert by_archive["audio"] == str(tmp_path / "a") and by_archive["clips"] == 40
    before = sorted((tmp_path / "a").rglob("*"))
    by_folder = fetch.fetch("fsdd", tmp_path / "b", source=tmp_path / "a", split="speaker")
    assert by_folder["audio"] == str(tmp_path / "a") and sorted((tmp_path / "a").rglob("*")) == before
    rows = list(csv.DictReader(io.StringIO((tmp_path / "b" / "labels.csv").read_text())))
    assert all((tmp_path / "a" / row["path"]).is_file() for row in rows) and {
        row["group"] for row in rows
    } == {"ann", "bob"}


def test_wrong_usage(tmp_path: Path) -> None:
    for arguments, message in [
        (("mnist", tmp_path), "choose one of gtzan, esc50"),
        (
            ("fsdd", tmp_path, None, "filtered"),
            "--split of fsdd must be one of official, speaker, got filtered",
        ),
        (("fsdd", tmp_path, tmp_path / "absent"), "--from must be an existing file or folder"),
        (("fsdd", tmp_path, tmp_path, None, "http://127.0.0.1/x"), "cannot be used together"),
    ]:
        with pytest.raises(UsageError, match=message):
            fetch.fetch(*arguments)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardwaveError, match="does not contain fsdd: expected recordings/"):
        fetch.fetch("fsdd", tmp_path / "out", source=tmp_path / "empty")
