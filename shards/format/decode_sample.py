"""Decode the fields of a sample: NumPy arrays (never pickled objects), class indices, JSON."""

from __future__ import annotations

import functools
import io
import json
import math
from typing import Any

import numpy as np

from shardwave.common.errors import ShardwaveError


def decode_field(name: str, data: bytes, where: str) -> Any:
    """Decode a field of a sample.

    Args:
        name: Name of the field; its suffix determines the type.
        data: Bytes of the field.
        where: Name of the sample for messages.

    Returns:
        An array for `npy`, an int for `cls`, the parsed value for `json`, the bytes for any other suffix.

    Raises:
        ShardwaveError: The field is damaged.
    """
    kind = name.rsplit(".", 1)[-1]
    try:
        if kind == "npy":
            return _array(data)
        if kind == "cls":
            return int(data)
        if kind == "json":
            return json.loads(data)
    except (ValueError, EOFError, OSError, RecursionError, SyntaxError, MemoryError) as error:
        raise ShardwaveError(f"{where}: field {name} is damaged ({error})") from None
    return data


def _array(data: bytes) -> np.ndarray:
    if len(data) < 10:
        raise ValueError("no NumPy header")
    length = 10 + int.from_bytes(data[8:10], "little")
    shape, fortran, dtype = _header(data[:length])
    count = math.prod(shape)
    if len(data) != length + count * dtype.itemsize:
        raise ValueError(f"{len(data) - length} bytes of data for {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype, count, length).copy()
    return array.reshape(shape, order="F" if fortran else "C")


@functools.lru_cache(maxsize=256)  # the samples of a set have the same header
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, Fortran order, dtype) of a NumPy 1.0 header; raises ValueError for arrays of objects."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not a header of NumPy's format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} {list(shape)} is refused")
    return shape, fortran, dtype
