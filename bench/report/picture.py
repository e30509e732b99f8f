"""Picture of the README: three stages of Shardwave beside other programs and limits, drawn from records."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shardwave.bench.harness.record import RecordRow, measured
from shardwave.bench.report.blocks import number
from shardwave.common.errors import UsageError

COLORS = {"ours": "#2f6fb0", "peer": "#b9bec6", "baseline": "#dfe3e8", "limit": "#e0a458"}


class Panel(NamedTuple):
    """One group of bars."""

    title: str
    unit: str  # a rate; records in seconds are inverted
    bars: Sequence[tuple[str, str]]  # label, case of a record


PANELS = (
    Panel(
        "From audio to shards (30 s clips)",
        "x real time",
        (
            ("Shardwave: image + 10 slices", "shard command, once started: full + 10 slices"),
            ("DALI: image", "DALI stock pipeline, CPU"),
            ("torchaudio: image", "torchaudio, torchvision resize"),
            ("librosa, PNG: image", "librosa, specshow, PNG"),
            ("limit: disk", "build: limit: disk write"),
        ),
    ),
    Panel(
        "Shuffled batches of 256 images",
        "samples/s",
        (
            ("Shardwave", "2,000 samples, batches of 256: ours, 2 threads"),
            ("LitData", "2,000 samples, batches of 256: LitData, 2 workers"),
            ("webdataset", "2,000 samples, batches of 256: webdataset, one process"),
            ("PNG files", "2,000 samples, batches of 256: PNG folder, ImageFolder, 2 workers"),
            ("limit: memory copy", "2,000 samples, batches of 256: limit: memory copy"),
        ),
    ),
    Panel(
        "Search of the MLP, 20 trials",
        "trials/min",
        (
            ("Shardwave, Optuna", "ours: optuna, 2 jobs"),
            ("Shardwave, Ray Tune", "ours: ray, 2 jobs"),
            ("Optuna, Lightning", "stock Optuna, Lightning, 1 at a time"),
            ("Ray Tune, Lightning", "stock Ray Tune, Lightning, 2 at a time"),
        ),
    ),
)


def draw(rows: Sequence[RecordRow]) -> bytes:
    """Return the picture as SVG.

    Args:
        rows: Records of `bench throughput`; the last one of a case counts.

    Raises:
        UsageError: A case of the picture has no record.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    records = {row["case"]: row for row in measured(rows)}
    with rc_context({"svg.hashsalt": "shardwave", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(11, 2.7), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            labels, values, colors = [], [], []
            for label, case in panel.bars:
                if case not in records:
                    raise UsageError(f"the picture needs a record of the case {case!r}: run bench throughput")
                median = records[case]["median"]
                labels.append(label)
                values.append(60 / median if records[case]["unit"] == "s/trial" else median)
                colors.append(COLORS[records[case]["role"]])
            bars = axes.barh(labels, values, color=colors)
            axes.bar_label(bars, [f" {number(value)}" for value in values], fontsize=8)
            axes.invert_yaxis()
            axes.set_title(panel.title, fontsize=10, loc="left")
            axes.set_xlabel(panel.unit, fontsize=8)
            axes.set_xlim(0, 1.2 * max(values))
            axes.set_xticks([])
            axes.tick_params(axis="y", labelsize=8, length=0)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    return buffer.getvalue()


def write(rows: Sequence[RecordRow], path: Path) -> bool:
    """Write the picture and return whether the file changed.

    Args:
        rows: Records, as for `draw`.
        path: SVG file.
    """
    from shardwave.shards.storage.atomic import write_bytes

    content = draw(rows)
    if path.exists() and path.read_bytes() == content:
        return False
    write_bytes(path, content)
    return True
