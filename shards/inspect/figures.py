"""Figures of samples: the spectrogram of a clip with its slices, and a contact sheet of all classes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.printable import one_line
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp import filters
from shardwave.shards import figures
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.inspect.lookup import find_clip
from shardwave.shards.inspect.summary import UNLABELLED
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "magma"
MAX_SLICES = 40  # number of slices drawn
TILE, GAP, LABEL = (
    1.2,
    0.06,
    1.5,
)  # contact sheet, inches: image side, gap between images, width of class names
INK, FAINT = "#222222", "#777777"


class SampleFigure(SampleMeta):
    """A figure of a clip: metadata of its full view, PNG file and number of slices."""

    key: str
    png: str
    slices: int  # number of slices of the clip


class Sheet(TypedDict):
    """A contact sheet."""

    png: str
    samples: int  # number drawn
    classes: int  # number drawn


def draw_sample(set_path: Path | str, key: str, png: Path | str) -> SampleFigure:
    """Draw the full view of a clip, with its slices below it, into a PNG file.

    Args:
        set_path: The set's folder or URL.
        key: Key of a sample of the clip, or the path of the clip.
        png: The file to write.

    Raises:
        UsageError: The set contains no spectrograms, or there is no such sample.
    """
    from matplotlib.figure import Figure

    figures.prepare()
    opened = open_set(set_path)
    config = _config(opened)
    view, row = find_clip(opened, key)
    meta, clip = view.meta(row), int(view.clip[row])
    image = view.gather([row])["npy"][0]
    all_slices = _slices(opened, clip)
    slices = all_slices[:MAX_SLICES]
    columns = min(10, len(slices)) or 1
    lines = -(-len(slices) // columns)
    figure = Figure(figsize=(11, 5.2 + 1.55 * lines), layout="constrained")
    grid = figure.add_gridspec(1 + lines, columns, height_ratios=[4.2, *[1.35] * lines])
    full = figure.add_subplot(grid[0, :])
    artist = _spectrogram(full, image, config, meta["start"], meta["start"] + meta["length"])
    full.set_xlabel("time (s)", fontsize=9, color=INK)
    full.set_ylabel(f"frequency (Hz, {config.frequency_scale})", fontsize=9, color=INK)
    full.set_title(
        one_line(f"{meta['label'] or UNLABELLED}   {meta['path']}"),
        loc="left",
        color=INK,
        fontsize=12,
        pad=22,
    )
    rate = [f"{meta['source_rate']:,} Hz at the source"] if meta.get("source_rate") else []
    details = [f"{meta['length']:.2f} s", *rate, view.key(row)]
    details += [
        one_line(f"{name} {value}")
        for name, value in (("group", meta["group"]), ("fold", meta["fold"]))
        if value is not None
    ]
    full.text(0, 1.02, "  ·  ".join(details), transform=full.transAxes, color=FAINT, fontsize=9)
    bar = figure.colorbar(artist, ax=full, pad=0.01, aspect=28)
    bar.set_label("dB relative to the clip's maximum", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    for number, (piece, pixels) in enumerate(slices):
        line, column = divmod(number, columns)
        axes = figure.add_subplot(grid[1 + line, column])
        start, stop = piece["start"], piece["start"] + piece["length"]
        _spectrogram(axes, pixels, config, start, stop, ticks=column == 0)
        axes.set_title(f"{piece['slice']}", fontsize=8, color=FAINT, pad=2)
        last = number == len(slices) - 1
        axes.set_xticks([start, stop], [f"{start:.2f}", f"{stop:.2f} s" if last else ""], fontsize=7)
        for side, label in zip(("left", "right"), axes.get_xticklabels(), strict=True):
            label.set(horizontalalignment=side)
        full.axvline(start, color="white", alpha=0.35, linewidth=0.6)
        if column == 0:
            part = "" if len(slices) == len(all_slices) else f" ({len(slices)} of {len(all_slices)})"
            axes.set_ylabel(f"slices{part}", fontsize=9, color=INK)
    figures.save(figure, png, dpi=150)
    return {"key": view.key(row), "png": str(png), "slices": len(all_slices), **meta}


def draw_sheet(set_path: Path | str, png: Path | str, per_class: int = 6) -> Sheet:
    """Draw a contact sheet with clips of every class, evenly spread over the set, into a PNG file.

    Args:
        set_path: The set's folder or URL.
        png: The file to write.
        per_class: Maximum number of clips per class.

    Raises:
        UsageError: The set contains no spectrograms.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figures.prepare()
    opened = open_set(set_path)
    config = _config(opened)
    view = opened.view(opened.splits, "full")
    names = [*opened.classes, *([UNLABELLED] if (view.cls == -1).any() else [])]
    blocks = 1 if len(names) <= 12 else 2 if len(names) <= 40 else 3  # columns of classes
    lines = -(-len(names) // blocks)
    dpi = 150 if blocks == 1 else 100
    block_width = LABEL + per_class * (TILE + GAP) + 0.25
    width, height = blocks * block_width, 0.45 + lines * (TILE + 0.3)  # inches, like all lengths here
    figure = Figure(figsize=(width, height), dpi=dpi)
    axis = f"time to the right, 0 to {config.sample_rate / 2000:g} kHz upwards ({config.frequency_scale})"

    def write(x: float, y: float, text: str, size: float, **style: str) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, **style)  # type: ignore[arg-type]

    write(
        LABEL,
        0.2,
        f"{opened.path.name}: {opened.manifest['clips']:,} clips; {axis}",
        10,
        color=INK,
        va="center",
    )
    tiles: list[tuple[int, int, int]] = []  # pixel row, pixel column, sample
    for number, name in enumerate(names):
        block, line = divmod(number, lines)
        left, top = block * block_width + LABEL, 0.4 + line * (TILE + 0.3)
        rows = np.flatnonzero(view.cls == (number if number < len(opened.classes) else -1))
        label = f"{_short(name)}\n{len(rows):,} clip{'s' if len(rows) != 1 else ''}"
        write(left - 0.1, top + TILE / 2, label, 9, color=INK, ha="right", va="center")
        chosen = rows[
            np.unique(np.linspace(0, len(rows) - 1, min(per_class, len(rows))).astype(int))
        ].tolist()
        for column, row in enumerate(chosen):
            meta, x = view.meta(row), left + column * (TILE + GAP)
            caption = f"{_short(Path(meta['path']).stem, 17)}, {meta['length']:.3g} s"
            write(x + TILE / 2, top + TILE + 0.05, caption, 6, color=FAINT, ha="center", va="top")
            tiles.append((round(top * dpi), round(x * dpi), row))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    sheet = np.array(canvas.buffer_rgba())[..., :3]
    colours, side = colormaps[COLOURS], round(TILE * dpi)
    for y, x, row in tiles:
        image = Image.fromarray(view.gather([row])["npy"][0][::-1]).resize(
            (side, side), Image.Resampling.LANCZOS
        )
        sheet[y : y + side, x : x + side] = colours(np.asarray(image), bytes=True)[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "png")
    figures.write(buffer, png)
    return {"png": str(png), "samples": len(tiles), "classes": len(names)}


def row_of(config: SpectrogramConfig, hz: np.ndarray) -> np.ndarray:
    """Return the image rows of frequencies.

    Args:
        config: The settings of the spectrogram.
        hz: Frequencies in Hz.

    Returns:
        Fractional rows, of the shape of `hz`; 0 is the centre of the row of the lowest frequencies.
    """
    size = config.image_size
    if config.frequency_scale == "log":
        low, high = np.log(filters.LOG_LOWEST), np.log(config.sample_rate / 2)
        return np.asarray((np.log(np.maximum(hz, 1e-9)) - low) / (high - low) * (size + 1) - 1)
    if config.frequency_scale == "mel":
        fraction = filters.hz_to_mel(hz) / filters.hz_to_mel(np.array(config.sample_rate / 2))
        return np.asarray(fraction * (size + 1) - 1)
    return (hz * config.n_fft / config.sample_rate + 0.5) * size / config.bins - 0.5


def _spectrogram(
    axes: Axes, image: np.ndarray, config: SpectrogramConfig, start: float, stop: float, ticks: bool = True
) -> Any:
    """Draw an image with axes of time (s) and frequency (Hz); returns the artist, whose values are in dB."""
    size = len(image)
    decibel = image.astype(np.float32) / 255 * -config.floor_db + config.floor_db
    extent = (start, stop, -0.5, size - 0.5)
    artist = axes.imshow(
        decibel, origin="lower", aspect="auto", cmap=COLOURS, vmin=config.floor_db, vmax=0, extent=extent
    )
    hz = _ticks(config)
    labels = [f"{value / 1000:g}k" if value >= 1000 else f"{value:g}" for value in hz]
    axes.set_yticks(row_of(config, hz), labels if ticks else [])
    axes.set_ylim(-0.5, size - 0.5)
    axes.tick_params(colors=INK, labelsize=8, length=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return artist


def _ticks(config: SpectrogramConfig) -> np.ndarray:
    """Choose round frequencies (Hz) for the axis."""
    nyquist = config.sample_rate / 2
    if config.frequency_scale == "linear":
        step = next(step for step in (100, 200, 500, 1000, 2000, 5000, 10_000, 50_000) if nyquist / step <= 8)
        return np.arange(0, nyquist + 1, step, dtype=float)
    ticks = np.array([base * 10.0**power for power in range(1, 6) for base in (1, 2, 5)])
    lowest = 20 if config.frequency_scale == "log" else 200
    return ticks[(ticks >= lowest) & (ticks <= nyquist)]


def _slices(opened: ShardSet, clip: int) -> list[tuple[SampleMeta, np.ndarray]]:
    """Read metadata and images of the slices of a clip, in order."""
    if "slice" not in opened.views:
        return []
    view = opened.view(opened.splits, "slice")
    rows = np.flatnonzero(view.clip == clip)
    slices = [(view.meta(int(row)), view.gather([int(row)])["npy"][0]) for row in rows]
    return sorted(slices, key=lambda pair: pair[0]["slice"] or 0)


def _config(opened: ShardSet) -> SpectrogramConfig:
    if opened.config is None or "npy" not in opened.fields:
        raise UsageError(f"{opened.path} contains no spectrograms: only sets of spectrograms can be drawn")
    return opened.config


def _short(text: str, length: int = 24) -> str:
    text = one_line(text)
    return text if len(text) <= length else text[: length - 1] + "…"
