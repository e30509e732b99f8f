"""Blocks that show what the network of a run looked at when it misclassified clips with confidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shardwave.bench.report.blocks import Block, Gallery, Picture, Table, Text
from shardwave.bench.report.pictures import heat_source
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.evaluation.clip_csv import ClipRow
from shardwave.models.evaluation.grad_cam import grad_cam
from shardwave.models.evaluation.occlusion import input_groups, occlusion
from shardwave.models.runs import checkpoint
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.shards.clip import clip_of_sample
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.read.shardset import ShardSet, View

CLIPS = 8  # that are explained
GROUPS = 7  # of features that are listed
_TITLE = "Heat maps of the most confident errors"
_READ = (
    "Right of each spectrogram (low frequencies at the bottom): the places whose content raised the logit of "
    "the predicted class (Grad-CAM, in the variant HiResCAM), each map on its own scale. If the same band or "
    "edge is bright in many clips and is no part of their sound, the network has probably learned a shortcut."
)
_READ_GROUPS = (
    "Probability of the predicted class with one group of inputs replaced by its mean over the training "
    "clips. The groups with the greatest changes are listed; a group that changes all clips, such as the "
    "length of a clip, may be a shortcut."
)


def attributions(
    folder: Path, wrong: Sequence[ClipRow], classes: Sequence[str], shard_set: ShardSet | str
) -> list[Block]:
    """Return heat maps, or tables of occluded inputs, of the most confident errors of a run.

    Args:
        folder: Run folder of a training or of a cross-validation.
        wrong: Misclassified clips, the most confident first.
        classes: Names of the classes.
        shard_set: Set of the run, or the reason why it cannot be read.

    Returns:
        A paragraph with the reason if the errors cannot be explained.
    """
    if not wrong:
        return []
    try:
        if isinstance(shard_set, str):
            raise UsageError(shard_set)
        samples = ErrorSamples(folder, shard_set)
        found = [(row, samples) for row in wrong[:CLIPS] if samples.has(row)]
        if not found:
            raise UsageError("the set does not hold the clips of the errors")
        trained = samples.trained(found[0][0])
        if trained.field == "npy":
            return _heat_maps(found, classes)
        return _occlusions(found, classes)
    except (UsageError, ShardwaveError) as error:
        reason = str(error)
    except Exception as error:  # networks of users raise errors of many classes
        reason = f"{type(error).__name__} {' '.join(str(error).split())}"
    return [Text(f"The errors are not explained by heat maps: {reason}")]


class ErrorSamples:
    """Samples and networks of the misclassified clips of a run.

    Args:
        folder: Run folder.
        shard_set: Set of the run.
    """

    def __init__(self, folder: Path, shard_set: ShardSet) -> None:
        self._folder, self.shard_set = folder, shard_set
        self._views: dict[tuple[str, str], View] = {}
        self._rows: dict[str, dict[tuple[str, float, float], int]] = {}
        self._trained: dict[Path, checkpoint.Trained] = {}

    def trained(self, row: ClipRow) -> checkpoint.Trained:
        """Return the network that predicted a clip: in a cross-validation, that of its fold."""
        fold = self._folder / row.split
        path = (fold if (fold / checkpoint.NAME).exists() else self._folder) / checkpoint.NAME
        if path not in self._trained:
            self._trained = {path: checkpoint.load(path)}  # of one fold at a time
        return self._trained[path]

    def _view(self, split: str, view: str) -> View:
        if (split, view) not in self._views:
            self._views[split, view] = self.shard_set.view((split,), view)
        return self._views[split, view]

    def has(self, row: ClipRow) -> bool:
        """Return whether the set holds a clip in the split of its prediction."""
        if row.split not in self.shard_set.splits:
            return False
        if row.split not in self._rows:
            view = self._view(row.split, "full")
            self._rows[row.split] = {clip_of_sample(view.meta(i)).identity: i for i in range(len(view))}
        return row.source.identity in self._rows[row.split]

    def full(self, row: ClipRow) -> tuple[View, int]:
        """Return the view of full clips and the place of a clip in it."""
        return self._view(row.split, "full"), self._rows[row.split][row.source.identity]

    def scored(self, row: ClipRow) -> tuple[View, np.ndarray]:
        """Return the view whose score selected the epoch, and the places of the samples of a clip in it."""
        full, place = self.full(row)
        view = self._view(row.split, SCORE_VIEWS[self.trained(row).selected])
        return view, np.flatnonzero(view.clip == full.clip[place])


def _heat_maps(found: Sequence[tuple[ClipRow, ErrorSamples]], classes: Sequence[str]) -> list[Block]:
    pictures = []
    for row, samples in found:
        view, places = samples.scored(row)
        images = torch.from_numpy(view.gather(places, ("npy",))["npy"])
        maps = grad_cam(samples.trained(row).network, images, int(row.probabilities.argmax()))
        full, place = samples.full(row)
        image = full.gather([place], ("npy",))["npy"][0]
        metas = [view.meta(i) for i in places.tolist()]
        source = heat_source(image, stitched(maps, metas, full.meta(place)))
        pictures.append(Picture(source, (row.source.name, *_classes(row, classes))))
    return [Gallery(_TITLE, pictures), Text(_READ)]


def stitched(maps: np.ndarray, metas: Sequence[SampleMeta], full: SampleMeta) -> np.ndarray:
    """Join the maps of the slices of a clip to a map of the full clip.

    Args:
        maps: Maps of the slices, or one map of the full clip, float32 [samples, frequency, time].
        metas: Places of the samples in the file.
        full: Place of the full clip in the file.

    Returns:
        The map, float32 [frequency, time]; the maximum where slices overlap.
    """
    width = maps.shape[2]
    joined = np.zeros(maps.shape[1:], maps.dtype)
    scale = width / max(full["length"], 1e-6)
    for one, meta in zip(maps, metas, strict=True):
        first = min(width - 1, round((meta["start"] - full["start"]) * scale))
        last = min(width, max(first + 1, round((meta["start"] - full["start"] + meta["length"]) * scale)))
        columns = ((np.arange(last - first) + 0.5) * width / (last - first)).astype(np.int64)
        joined[:, first:last] = np.maximum(joined[:, first:last], one[:, columns])
    return joined


def _occlusions(found: Sequence[tuple[ClipRow, ErrorSamples]], classes: Sequence[str]) -> list[Block]:
    changes: list[dict[str, float]] = []
    for row, samples in found:
        trained, (view, places) = samples.trained(row), samples.scored(row)
        groups = input_groups(samples.shard_set, trained.field)
        if len(groups) < 2:
            raise UsageError(f"the network has one group of inputs only, {', '.join(groups)}")
        values = torch.from_numpy(view.gather(places, (trained.field,))[trained.field]).float()
        mean = trained.network.get_buffer("mean")
        changes.append(occlusion(trained.network, values, groups, int(row.probabilities.argmax()), mean))
    before = [float(row.probabilities.max()) for row, _ in found]
    effects = {
        name: sum(abs(p - each[name]) for p, each in zip(before, changes, strict=True)) for name in changes[0]
    }
    names = sorted(effects, key=lambda name: -effects[name])[:GROUPS]
    rows = [
        (row.source.name, *_classes(row, classes), *(f"{each[name]:.2f}" for name in names))
        for (row, _), each in zip(found, changes, strict=True)
    ]
    head = ("clip", "predicted", "label", *(f"without {name}" for name in names))
    return [Table(head, rows, range(3, len(head)), "Inputs of the most confident errors"), Text(_READ_GROUPS)]


def _classes(row: ClipRow, classes: Sequence[str]) -> tuple[str, str]:
    """Return the predicted class and the label of a clip, with their probabilities."""
    own = row.probabilities[classes.index(row.label)]
    return f"predicted {row.best(classes)}, {row.probabilities.max():.2f}", f"label {row.label}, {own:.2f}"
