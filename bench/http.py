"""A plain HTTP server of a folder in a process of its own, on this machine."""

from __future__ import annotations

import contextlib
import functools
import http.server
import multiprocessing
import urllib.request
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of `folder`, ended with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(str(folder), theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def fetch(urls: Sequence[str], block: int = 1 << 20) -> int:
    """Read all bytes of `urls` into one buffer; how many there were."""
    buffer = memoryview(bytearray(block))
    total = 0
    for url in urls:
        with urllib.request.urlopen(url) as answer:
            while got := answer.readinto(buffer):
                total += got
    return total


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """No line per request."""


def _serve(folder: str, answer: Connection) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    answer.send(server.server_port)
    server.serve_forever()
