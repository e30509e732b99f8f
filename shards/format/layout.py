"""Names, keys and bytes of samples: what a shard set looks like on disk (DESIGN §2, sample and shard set)."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np

from shardwave.common.errors import UsageError

NPY_HEADER = 128  # bytes; fixed, so that behind a 512-byte tar header the data lie 64-byte aligned
BLOCK = 512  # bytes; headers and data of a tar's members begin at multiples
SCHEMES = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "memory")
TAR, INDEX, DALI_INDEX = ".tar", ".index", ".idx"
MANIFEST, QUARANTINE, INPUTS = "manifest.json", "quarantine.jsonl", "inputs.jsonl"
REMARKS = "remarks.jsonl"  # what was wrong with files that are used all the same
BUILD, LOCK = ".shardwave.build", ".shardwave.lock"
SPLIT = re.compile(r"train|val|test|fold\d{1,9}")
VIEWS = ("full", "slice")
SHARD_FILE = re.compile(rf"({SPLIT.pattern})-(full|slice)-(\d{{4,9}})(\.tar|\.index|\.idx)")
RECORD = re.compile(rf"({SPLIT.pattern})-\d{{4,9}}\.json")  # of a finished unit, in BUILD
BUILD_FILE = re.compile(rf"{RECORD.pattern}|plan\.jsonl|written\.txt")
TEMPORARY = re.compile(
    rf"\.({SHARD_FILE.pattern}|manifest\.json|(quarantine|remarks|inputs)\.jsonl|{BUILD_FILE.pattern})\.\d+\.tmp"
)


def shard_name(split: str, view: str, index: int) -> str:
    """The stem of a shard's three files."""
    return f"{split}-{view}-{index:04d}"


def clip_key(number: int, path: str) -> str:
    """A key of letters, digits, `_` and `-`, unique by the clip's number in the sorted list: `000123_blues-00000`."""
    name = path.rsplit("/", 1)[-1]
    stem = name.rsplit(".", 1)[0] if "." in name[1:] else name
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    return f"{number:06d}_{slug}" if slug else f"{number:06d}"


def slice_key(key: str, index: int) -> str:
    """The key of a clip's slice."""
    return f"{key}_s{index:03d}"


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """A NumPy 1.0 file header of NPY_HEADER bytes for C-ordered data; raises ValueError where it does not fit."""
    text = f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    room = NPY_HEADER - 11
    if len(text) > room:
        raise ValueError(f"shape {shape} has too many dimensions for a header of {NPY_HEADER} bytes")
    return b"\x93NUMPY\x01\x00" + (NPY_HEADER - 10).to_bytes(2, "little") + text.ljust(room) + b"\n"


def padded(size: int) -> int:
    """`size` rounded up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def is_url(location: object) -> bool:
    """Whether a set or a folder is named by a URL (`s3://bucket/set`), not by a path."""
    return isinstance(location, str) and re.match(r"[A-Za-z][A-Za-z0-9+._-]+://", location) is not None


def check_url(url: str) -> str:
    """Return `url` if its scheme is one of SCHEMES; fsspec and webdataset know others, of which some run commands.

    Raises:
        UsageError: names the URL and the schemes.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UsageError(f"{url}: a URL's scheme must be one of {', '.join(SCHEMES)}, got {scheme}")
    if "::" in url and scheme not in ("http", "https"):  # fsspec's chains, which hide another URL
        raise UsageError(f"{url}: a URL with :: is refused, for it chains other places: give the place itself")
    return url


def located(location: Path | str) -> Path | str:
    """A URL as it is, anything else as a path."""
    return location if is_url(location) else Path(location)
