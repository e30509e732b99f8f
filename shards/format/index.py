"""The field index beside each tar: offset and length of every field of every sample, with the class and clip columns.

Little-endian, read in one go: magic, header length, CRC-32 of what follows (begun from that length), a JSON header padded to 64
bytes, then int64 columns `cls [n]`, `clip [n]`, and for each field `offset [n]`, `length [n]` (of the tar member's data, with its
NumPy header).
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

MAX_TAR = 1 << 41  # bytes; a view keeps offsets as 32-bit numbers of blocks
_MAGIC = b"SWINDEX1"
_PREFIX = struct.Struct("<8sII")
MAX_HEADER = 1 << 16  # bytes; more than any header takes
_REMEDY = "build the set again, or restore the file"


class Header(TypedDict):
    """The JSON header of an index."""

    samples: typed.Count
    tar_bytes: Annotated[int, typed.Range(0, MAX_TAR)]
    tar_blake3: str
    fields: list[str]


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the fields of one tar's samples lie."""

    tar_bytes: int
    tar_blake3: str
    cls: np.ndarray  # int64 [samples]
    clip: np.ndarray  # int64 [samples]
    offset: dict[str, np.ndarray]  # field -> int64 [samples], bytes
    length: dict[str, np.ndarray]  # field -> int64 [samples], bytes

    def __len__(self) -> int:
        return len(self.cls)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        meta = {"samples": len(self), "tar_bytes": self.tar_bytes, "tar_blake3": self.tar_blake3, "fields": list(self.offset)}
        header = json.dumps(meta).encode()
        header = header.ljust(-(-(_PREFIX.size + len(header)) // 64) * 64 - _PREFIX.size)
        columns = [self.cls, self.clip]
        for field in self.offset:
            columns += [self.offset[field], self.length[field]]
        body = header + b"".join(np.ascontiguousarray(column, dtype="<i8").tobytes() for column in columns)
        return _PREFIX.pack(_MAGIC, len(header), zlib.crc32(body, len(header))) + body


def file_bytes(samples: int, fields: int) -> int:
    """Return how many bytes the columns of an index take, without its header."""
    return 8 * samples * (2 + 2 * fields)


def read(path: Path | str) -> Index:
    """Read an index; raises ShardwaveError, naming the file, where it is missing, damaged or of another format."""
    try:
        data = regular_file.read_bytes(path)
    except OSError as error:
        raise ShardwaveError(f"{path}: the shard's index cannot be read ({error.strerror}): {_REMEDY}") from None
    if len(data) < _PREFIX.size or data[:8] != _MAGIC:
        raise ShardwaveError(f"{path}: not a field index of this format")
    _, header_length, crc = _PREFIX.unpack_from(data)
    if zlib.crc32(memoryview(data)[_PREFIX.size :], header_length) != crc:
        raise ShardwaveError(f"{path}: the index is damaged (its checksum does not fit): {_REMEDY}")
    begin = _PREFIX.size + header_length
    meta = typed.check(typed.parse(data[_PREFIX.size : begin], path), Header, path, _REMEDY)
    samples, fields, tar_bytes = meta["samples"], meta["fields"], meta["tar_bytes"]
    if len(set(fields)) != len(fields) or len(data) - begin != file_bytes(samples, len(fields)):
        raise ShardwaveError(f"{path}: the index does not hold what its header says")
    columns = np.frombuffer(memoryview(data)[begin:], "<i8").reshape(2 + 2 * len(fields), samples)
    starts, sizes = columns[2::2], columns[3::2]
    if columns[2:].size and not (
        columns[2:].view(np.uint64).max() <= tar_bytes  # as such, a negative number is a huge one
        and starts.min() >= 512
        and (starts + sizes).max() <= tar_bytes  # no overflow: MAX_TAR is far below 2**62
        and not np.bitwise_or.reduce(starts, axis=None) % BLOCK
    ):
        raise ShardwaveError(f"{path}: the index points outside its tar: {_REMEDY}")
    offset, length = dict(zip(fields, starts, strict=True)), dict(zip(fields, sizes, strict=True))
    return Index(tar_bytes, meta["tar_blake3"], columns[0], columns[1], offset, length)


def dali_index(names: Sequence[Sequence[str]], index: Index) -> bytes:
    """The text that DALI's WebDataset reader takes beside a tar (its index format v1.2).

    `names`: per sample the tar's member names, in the order of `index.offset`.
    """
    columns = [(field, index.offset[field].tolist(), index.length[field].tolist()) for field in index.offset]
    lines = [f"v1.2 {len(index)}"]
    for i, members in enumerate(names):
        lines.append(
            " ".join(
                f"{field} {offset[i]} {length[i]} {name}" for (field, offset, length), name in zip(columns, members, strict=True)
            )
        )
    return ("\n".join(lines) + "\n").encode()
