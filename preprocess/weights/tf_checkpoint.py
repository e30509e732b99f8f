"""Read a TensorFlow checkpoint (the "tensor bundle" of an index and a data file) without TensorFlow.

The index is a table of LevelDB: a footer points to a block of block handles, and each data block holds keys
with shared prefixes. A key is the name of a variable; its value is a `BundleEntryProto` with dtype, shape,
offset and size (tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/lib/io/table_format.txt).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from shardwave.common.errors import ShardwaveError

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two block handles, zero-padded, and the magic number
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # DataType of tensorflow/core/framework/types.proto


def read(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Read the variables of a checkpoint that has one data file.

    Args:
        index: Content of the index file.
        data: Content of the data file.

    Returns:
        The variables by name.

    Raises:
        ShardwaveError: A file is damaged, or the index is compressed.
    """
    try:
        if len(index) < _FOOTER or struct.unpack("<Q", index[-8:])[0] != _MAGIC:
            raise ValueError("the index has no footer")
        footer = memoryview(index)[-_FOOTER:]
        _, _, at = _handle(footer, 0)
        start, size, _ = _handle(footer, at)
        variables = {}
        for _, handle in _entries(_block(index, start, size)):
            start, size, _ = _handle(handle, 0)
            for key, value in _entries(_block(index, start, size)):
                if key:  # the empty key holds the header of the bundle
                    variables[key.decode()] = _tensor(value, data)
        return variables
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise ShardwaveError(f"the TensorFlow checkpoint is damaged ({error})") from None


def _varint(data: Any, at: int) -> tuple[int, int]:
    """Return the base-128 integer at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _handle(data: Any, at: int) -> tuple[int, int, int]:
    """Return offset and size of a block, and the position after the handle."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _block(index: bytes, offset: int, size: int) -> bytes:
    if index[offset + size]:
        raise ValueError("the index is compressed")
    return index[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a block; its end is a table of restart positions and their number."""
    end = len(block) - 4 * (1 + struct.unpack("<I", block[-4:])[0])
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4  # fixed width: the checksum
        elif kind == 2:
            length, at = _varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            raise ValueError(f"unknown wire type {kind}")


def _tensor(entry: bytes, data: bytes) -> np.ndarray:
    """Return the variable that a BundleEntryProto describes."""
    fields = dict(_fields(entry))
    shape = [dict(_fields(size)).get(1, 0) for number, size in _fields(fields.get(2, b"")) if number == 2]
    offset, size = fields.get(4, 0), fields[5]
    if offset + size > len(data):
        raise ValueError("a variable lies beyond the data file")
    values = np.frombuffer(
        data, _DTYPES[fields[1]], count=size // np.dtype(_DTYPES[fields[1]]).itemsize, offset=offset
    )
    return values.reshape(shape)
