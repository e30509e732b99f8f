"""The json field of a sample."""

from __future__ import annotations

from typing import TypedDict

from preprocess import typed


class SampleMeta(TypedDict):
    """What is known of a sample; times in seconds."""

    label: str | None
    path: str
    group: str | None
    fold: typed.Count | None
    view: str
    slice: typed.Count | None
    start: float
    length: float
    source_rate: typed.Count | None
