"""Pictures of clips as data URIs, and links to their sound."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np

from shardwave.shards.read.shardset import View

PIXELS = 128  # side of a picture, at most


def picture_source(view: View, row: int) -> str:
    """Return the stored image of a sample as a data URI: a PNG with low frequencies at the bottom."""
    from matplotlib import colormaps
    from PIL import Image

    pixels = view.gather([row])["npy"][0][::-1]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > PIXELS:
        image = image.resize((PIXELS, PIXELS), Image.Resampling.BOX)
    image.putpalette((colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def audio_link(audio: Path | None, path: str, folder: Path) -> str:
    """Return the link from a page in `folder` to an audio file, or an empty text if the file is missing.

    Args:
        audio: Folder of the audio files, or None.
        path: Path of the file below `audio`.
        folder: Folder of the page.
    """
    if audio is None or not (audio / path).is_file():
        return ""
    return quote(os.fsencode(os.path.relpath((audio / path).absolute(), folder.absolute())))
