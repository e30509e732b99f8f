"""Fields of a sample from their bytes: NumPy arrays (never pickles), class numbers, JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from preprocess.errors import ShardwaveError


def decode_field(name: str, data: bytes, where: str) -> Any:
    """The value of a field: .npy -> array, .cls -> int, .json -> dict, anything else -> the bytes. Raises ShardwaveError."""
    kind = name.rsplit(".", 1)[-1]
    try:
        if kind == "npy":
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        if kind == "cls":
            return int(data)
        if kind == "json":
            return json.loads(data)
    except (ValueError, EOFError, OSError) as error:
        raise ShardwaveError(f"{where}: field {name} is damaged ({error})") from None
    return data
