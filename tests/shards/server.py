"""A local HTTP server for a folder, which misbehaves as it is told."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

STALL = 1.0  # seconds: longer than the timeout that the tests give


class Server(http.server.ThreadingHTTPServer):
    """A server that disturbs requests.

    `troubles` maps (path, number of the request) to "503", "stall", "cut", "hang" (until the client ends),
    "wrong" (one bit) or "changed"; other requests are served.
    """

    daemon_threads = True

    def __init__(self, folder: Path, troubles: dict[tuple[str, int], str], ranges: bool):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.troubles, self.ranges = folder, troubles, ranges
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        with self.server.lock:
            self.server.requests[name] += 1
            trouble = self.server.troubles.get((name, self.server.requests[name]))
        path = self.server.folder / name
        if trouble == "503":
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not path.exists():
            self.send_error(404)
            return
        data = path.read_bytes()
        start = 0
        asked = self.headers.get("Range")
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"other"' if trouble == "changed" else '"first"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:]
        if trouble == "wrong":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        if trouble in (None, "changed", "wrong"):
            self.wfile.write(rest)
            return
        self.wfile.write(rest[: len(rest) // 3])
        self.wfile.flush()
        if trouble == "stall":
            time.sleep(STALL)
        if trouble == "hang":
            self.rfile.read(1)
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve(
    folder: Path, troubles: dict[tuple[str, int], str] | None = None, *, ranges: bool = True
) -> Iterator[Server]:
    """Serve a folder on 127.0.0.1 while the context lasts.

    Args:
        folder: The folder.
        troubles: Disturbances of requests, see `Server`.
        ranges: Whether the server answers requests of byte ranges.
    """
    server = Server(folder, troubles or {}, ranges)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
