"""Columns of a feature table that describe the file or the row, from which a model can guess the class."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_FILE = re.compile(
    r"(clip_|track_|audio_|file_)?(length|duration|seconds|ms|n_?samples|num_samples|samples|frames|n_?frames|size|bytes"
    r"|bit_?rate|bits|bit_?depth|sample_?rate|sr|channels)(_(s|sec|seconds|ms|samples|bytes|hz))?"
)
_ID = re.compile(r"(.*_)?(id|ids|uid|uuid|guid|hash|md5|key)")
_PATH = re.compile(r"(.*_)?(path|file|filename|folder|dir|directory|url|uri)")


def suspicious(features: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the columns that look like lengths, ids or paths, with the kind of each.

    A column is judged by its name. One of whole numbers that are all different and without gaps is a
    numbering of the rows, whatever its name.

    Args:
        features: Values of each feature column, float32 [rows].
    """
    found = {}
    for name, values in features.items():
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        if _FILE.fullmatch(plain):
            found[name] = "a property of the file"
        elif _ID.fullmatch(plain):
            found[name] = "an id"
        elif _PATH.fullmatch(plain):
            found[name] = "a path"
        elif len(values) > 2 and _counts(values):
            found[name] = "a numbering of the rows"
    return found


def _counts(values: np.ndarray) -> bool:
    """Return whether values are whole numbers that are all different and without gaps."""
    ordered = np.sort(values.astype(np.float64))
    return np.array_equal(ordered - ordered[0], np.arange(len(values)))
