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
GAP = 4  # pixels between two pictures


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


def heat_source(image: np.ndarray, heat: np.ndarray) -> str:
    """Return an image beside its heat map as a data URI: a JPEG with low frequencies at the bottom.

    Args:
        image: Levels of the spectrogram, uint8 [frequency, time].
        heat: Values of the map, float32 [frequency, time]; those up to the median are not shown, and the
            maximum is the brightest.
    """
    from matplotlib import colormaps
    from PIL import Image

    above = np.maximum(heat - np.median(heat), 0)
    share = (above / max(float(above.max()), 1e-30))[..., None]
    grey = np.repeat(image[..., None] / 510, 3, axis=2)  # half as bright as the heat
    overlay = grey * (1 - share) + colormaps["hot"](share[..., 0])[..., :3] * share
    buffer = io.BytesIO()
    pair = Image.new("RGB", (2 * PIXELS + GAP, PIXELS), "white")
    for i, colours in enumerate((colormaps["magma"](image)[..., :3], overlay)):
        part = Image.fromarray((colours[::-1] * 255).astype(np.uint8))
        pair.paste(part.resize((PIXELS, PIXELS), Image.Resampling.BOX), (i * (PIXELS + GAP), 0))
    pair.save(buffer, "jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


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
