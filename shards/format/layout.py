"""File names, sample keys and array headers of a shard set."""

from __future__ import annotations

import functools
import re
import unicodedata
from pathlib import Path

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.shards.format.layouts import STRIP

NPY_HEADER = 128  # bytes; fixed, so that the data after a 512-byte tar header are 64-byte aligned
BLOCK = 512  # bytes; headers and data of a tar's members start at multiples of it
SCHEMES = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "memory")
TAR, INDEX, DALI_INDEX = ".tar", ".index", ".idx"
MANIFEST, QUARANTINE, INPUTS = "manifest.json", "quarantine.jsonl", "inputs.jsonl"
REMARKS = "remarks.jsonl"  # files that are used although something is wrong with them
BUILD, LOCK = ".shardwave.build", ".shardwave.lock"
SPLIT = re.compile(r"train|val|test|fold\d{1,9}")
VIEWS = ("full", "slice")
STORED = (*VIEWS, STRIP)
SHARD_FILE = re.compile(rf"({SPLIT.pattern})-(full|slice|strip)-(\d{{4,9}})(\.tar|\.index|\.idx)")
RECORD = re.compile(rf"({SPLIT.pattern})-\d{{4,9}}\.json")  # of a finished task, in BUILD
BUILD_FILE = re.compile(rf"{RECORD.pattern}|plan\.jsonl|written\.txt")
TEMPORARY = re.compile(
    rf"\.({SHARD_FILE.pattern}|manifest\.json|(quarantine|remarks|inputs)\.jsonl|{BUILD_FILE.pattern})\.\d+\.tmp"
)


def shard_name(split: str, view: str, index: int) -> str:
    """Return the stem of the names of a shard's three files, as `train-full-0003`.

    Args:
        split: Split of the samples.
        view: View of the samples, or `strip`.
        index: Number of the shard within split and view.
    """
    return f"{split}-{view}-{index:04d}"


def clip_key(number: int, path: str) -> str:
    """Return the key of a clip's samples, as `000123_blues-00000`.

    Args:
        number: Number of the clip in the sorted list of clips, which makes the key unique.
        path: Path of the clip; the key contains ASCII letters and digits of its stem.
    """
    name = path.rsplit("/", 1)[-1]
    stem = name.rsplit(".", 1)[0] if "." in name[1:] else name
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    return f"{number:06d}_{slug}" if slug else f"{number:06d}"


def slice_key(key: str, index: int) -> str:
    """Return the key of slice `index` of the clip with the key `key`."""
    return f"{key}_s{index:03d}"


@functools.lru_cache(maxsize=256)
def npy_header(dtype: str, shape: tuple[int, ...], *, fortran: bool = False) -> bytes:
    """Return a NumPy 1.0 file header of NPY_HEADER bytes.

    Args:
        dtype: Type of the values.
        shape: Shape of the array.
        fortran: Whether the values are in Fortran order, not in C order.

    Raises:
        ValueError: The shape needs a longer header.
    """
    text = f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}".encode()
    text_length = NPY_HEADER - 11
    if len(text) > text_length:
        raise ValueError(f"shape {shape} has too many dimensions for a header of {NPY_HEADER} bytes")
    return b"\x93NUMPY\x01\x00" + (NPY_HEADER - 10).to_bytes(2, "little") + text.ljust(text_length) + b"\n"


def padded(size: int) -> int:
    """Round a number of bytes up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def is_url(location: object) -> bool:
    """Return whether a location is a URL (`s3://bucket/set`), not a path."""
    return isinstance(location, str) and re.match(r"[A-Za-z][A-Za-z0-9+._-]+://", location) is not None


def check_url(url: str) -> str:
    """Return `url` if its scheme is one of SCHEMES: fsspec and webdataset have schemes that run commands.

    Raises:
        UsageError: The scheme is another one, or the URL contains another URL (`::`).
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UsageError(f"{url}: a URL's scheme must be one of {', '.join(SCHEMES)}, got {scheme}")
    if "::" in url and scheme not in ("http", "https"):  # fsspec opens the URL after `::`
        raise UsageError(f"{url}: a URL with :: is refused, it contains another URL: give that URL itself")
    return url


def located(location: Path | str) -> Path | str:
    """Return a URL unchanged, and any other location as a path."""
    return location if is_url(location) else Path(location)
