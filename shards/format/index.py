"""The field index of each tar: offset and length of each field of each sample, and columns of class and clip.

Layout, little-endian: magic (8 bytes), length of the JSON header (uint32), CRC-32 of all following bytes with
the header length as start value (uint32), JSON header padded so that it ends at a multiple of 64 bytes, then
int64 columns `cls [n]`, `clip [n]`, and for each field `offset [n]` and `length [n]` of the tar member's data
(NumPy header included).
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np

from shardwave.common import regular_file, typed
from shardwave.common.errors import ShardwaveError
from shardwave.shards.format.layout import BLOCK

MAX_TAR = 1 << 41  # bytes; a view stores offsets as 32-bit block numbers
_MAGIC = b"SWINDEX1"
_PREFIX = struct.Struct("<8sII")
MAX_HEADER = 1 << 16  # bytes; above the size of any header
_REMEDY = "build the set again, or restore the file"


class Header(TypedDict):
    """The JSON header of an index."""

    samples: typed.Count
    tar_bytes: Annotated[int, typed.Range(0, MAX_TAR)]
    tar_blake3: str
    fields: list[str]


@dataclasses.dataclass(frozen=True)
class Index:
    """Position of each field of each sample in one tar.

    Args:
        tar_bytes: Size of the tar in bytes.
        tar_blake3: BLAKE3 digest of the tar, in hexadecimal.
        cls: Class index of each sample, -1 if it has no label. int64 [samples].
        clip: Number of each sample's clip. int64 [samples].
        offset: By field, the position of each sample's data in the tar, in bytes. int64 [samples].
        length: By field, the length of each sample's data, in bytes. int64 [samples].
    """

    tar_bytes: int
    tar_blake3: str
    cls: np.ndarray
    clip: np.ndarray
    offset: dict[str, np.ndarray]
    length: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.cls)

    def to_bytes(self) -> bytes:
        """Return the content of the index file."""
        meta = {
            "samples": len(self),
            "tar_bytes": self.tar_bytes,
            "tar_blake3": self.tar_blake3,
            "fields": list(self.offset),
        }
        header = json.dumps(meta).encode()
        header = header.ljust(-(-(_PREFIX.size + len(header)) // 64) * 64 - _PREFIX.size)
        columns = [self.cls, self.clip]
        for field in self.offset:
            columns += [self.offset[field], self.length[field]]
        body = header + b"".join(np.ascontiguousarray(column, dtype="<i8").tobytes() for column in columns)
        return _PREFIX.pack(_MAGIC, len(header), zlib.crc32(body, len(header))) + body


def file_bytes(samples: int, fields: int) -> int:
    """Return the size of the columns of an index in bytes, without the header.

    Args:
        samples: Number of samples.
        fields: Number of fields.
    """
    return 8 * samples * (2 + 2 * fields)


def read(path: Path | str) -> Index:
    """Read an index and check that all offsets are inside its tar.

    Raises:
        ShardwaveError: The file is missing, damaged or of another format.
    """
    try:
        data = regular_file.read_bytes(path)
    except OSError as error:
        raise ShardwaveError(
            f"{path}: the shard's index cannot be read ({error.strerror}): {_REMEDY}"
        ) from None
    if len(data) < _PREFIX.size or data[:8] != _MAGIC:
        raise ShardwaveError(f"{path}: not a field index of this format: {_REMEDY}")
    _, header_length, crc = _PREFIX.unpack_from(data)
    if zlib.crc32(memoryview(data)[_PREFIX.size :], header_length) != crc:
        raise ShardwaveError(f"{path}: the index is damaged (its checksum does not fit): {_REMEDY}")
    begin = _PREFIX.size + header_length
    meta = typed.check(typed.parse(data[_PREFIX.size : begin], path), Header, path, _REMEDY)
    samples, fields, tar_bytes = meta["samples"], meta["fields"], meta["tar_bytes"]
    if len(set(fields)) != len(fields) or len(data) - begin != file_bytes(samples, len(fields)):
        raise ShardwaveError(f"{path}: the size of the index does not fit its header: {_REMEDY}")
    columns = np.frombuffer(memoryview(data)[begin:], "<i8").reshape(2 + 2 * len(fields), samples)
    starts, sizes = columns[2::2], columns[3::2]
    if columns[2:].size and not (
        columns[2:].view(np.uint64).max() <= tar_bytes  # unsigned: a negative number is too large
        and starts.min() >= 512
        and (starts + sizes).max() <= tar_bytes  # cannot overflow: both are at most MAX_TAR
        and not np.bitwise_or.reduce(starts, axis=None) % BLOCK
    ):
        raise ShardwaveError(f"{path}: the index points outside its tar: {_REMEDY}")
    offset, length = dict(zip(fields, starts, strict=True)), dict(zip(fields, sizes, strict=True))
    return Index(tar_bytes, meta["tar_blake3"], columns[0], columns[1], offset, length)


def dali_index(names: Sequence[Sequence[str]], index: Index) -> bytes:
    """Return the content of an index file for DALI's WebDataset reader (its format v1.2).

    Args:
        names: For each sample, the names of its tar members in the order of `index.offset`.
        index: The field index of the tar.
    """
    columns = [(field, index.offset[field].tolist(), index.length[field].tolist()) for field in index.offset]
    lines = [f"v1.2 {len(index)}"]
    for i, members in enumerate(names):
        lines.append(
            " ".join(
                f"{field} {offset[i]} {length[i]} {name}"
                for (field, offset, length), name in zip(columns, members, strict=True)
            )
        )
    return ("\n".join(lines) + "\n").encode()
