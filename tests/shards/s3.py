"""An S3 server on loopback (moto), and a proxy before it that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shardwave.shards.storage.any_path import as_path

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
ALONE = (
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
)  # headers that are each connection's own


@contextlib.contextmanager
def moto() -> Iterator[int]:
    """The port of a server with a fresh, empty store."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, "moto did not start"
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy that disturbs requests.

    `trouble(method, path, n)` selects what happens to the n-th such request: "503", "cut" (the connection is
    closed half way) or None.
    """

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = port
        self.trouble: Callable[[str, str, int], str | None] = lambda method, path, n: None
        self.requests: Counter[tuple[str, str]] = Counter()
        self.troubles: Counter[str] = Counter()  # what was done
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that clients, or we, have cut."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def forward(self) -> None:
        path = self.path.split("?")[0]
        with self.server.lock:
            self.server.requests[self.command, path] += 1
            trouble = self.server.trouble(self.command, path, self.server.requests[self.command, path])
            self.server.troubles[trouble or ""] += 1
        length = int(self.headers.get("Content-Length", 0))
        if trouble == "cut" and self.command == "PUT":
            self.rfile.read(length // 2)
            self.hang_up()
            return
        body = self.rfile.read(length)
        if trouble == "503":
            self.answer(
                503,
                [],
                b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
            )
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ALONE]
        size = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(data)
        self.answer(answer.status, headers, data, size, cut=trouble == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    def answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        size: int | None = None,
        cut: bool = False,
    ) -> None:
        """Send an answer.

        Args:
            status: HTTP status.
            headers: Headers apart from the length.
            data: Content; not sent for HEAD.
            size: Announced length; by default that of `data`.
            cut: Close the connection after half of the content.
        """
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if size is None else size))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else b"" if self.command == "HEAD" else data)
        if cut:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy before the server at `port` while the context lasts."""
    server = Proxy(port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def environment(url: str) -> Iterator[dict[str, str]]:
    """The environment in which `s3://` means the server at `url`, here and in processes that are started."""
    given = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": url,
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield given
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def bucket(name: str) -> str:
    """A new bucket's URL."""
    store().mkdir(name)
    return f"s3://{name}"


def store() -> Any:
    """The file system that `s3://` means now; tests look with it at what is really there."""
    return as_path("s3://any").fs  # type: ignore[union-attr]


def upload(folder: Path, url: str) -> None:
    """Copy every file below `folder` to `url`."""
    there = store()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            there.put_file(str(path), f"{url}/{path.relative_to(folder)}")


def objects(url: str) -> dict[str, tuple[int, str, str]]:
    """(bytes, ETag, time of the last change) by name below `url`."""
    found = store().find(url, detail=True)
    start = len(url.removeprefix("s3://")) + 1
    return {
        name[start:]: (info["size"], info["ETag"], str(info["LastModified"]))
        for name, info in found.items()
        if "ETag" in info
    }
