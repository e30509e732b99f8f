"""The ESC family's file names: {fold}-{Freesound clip}-{take}-{target}.wav, in its first release without the target."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile(r"([1-9])-(\d+)-([A-Z])(?:-(\d{1,2}))?\.(?:wav|ogg|flac|mp3)", re.IGNORECASE)
_FOLDER = re.compile(r"\d{3} - (.+)")


class EscName(NamedTuple):
    """What an ESC file name says: takes of one Freesound clip belong together."""

    fold: int
    clip: str
    take: str
    target: str | None  # class number as written, None in the first release


def parse(name: str) -> EscName | None:
    """Read a file name such as `1-100032-A-0.wav`; None when it is not of this form."""
    match = _NAME.fullmatch(name)
    return EscName(int(match[1]), match[2], match[3].upper(), match[4]) if match else None


def folder_label(name: str) -> str | None:
    """The class that a folder of the first release names: `001 - Dog bark` -> `Dog bark`."""
    match = _FOLDER.fullmatch(name)
    return match[1] if match else None
