"""Rows of the accuracy table: networks on stored fields, the same with nested searches, and scikit-learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

from shardwave.models.training.config import defaults
from shardwave.preprocess.config import SpectrogramConfig

Options = dict[str, Any]  # fields of `TrainConfig`
IMAGES = SpectrogramConfig(image_size=128, frequency_scale="mel", slices=5, features=True)
STRIPS = SpectrogramConfig(
    sample_rate=44_100, image_size=128, frequency_scale="mel", slice_seconds=4.0, slice_overlap=0.75
)
SEEDS = (0, 1, 2, 3, 4)


class RowSpec(NamedTuple):
    """How a row of the table is measured.

    Attributes:
        model: Name of the network, or of the classifier in `shardwave.bench.peers.classifiers`.
        options: Fields of `TrainConfig`; `inputs` alone for a classifier.
        seeds: Seeds of the cross-validations.
        kind: `train`: default settings; `search`: settings searched in each round; `peer`: scikit-learn.
        strips: Whether the row is measured on a set of strips with the configuration STRIPS.
    """

    model: str
    options: Options
    seeds: tuple[int, ...] = SEEDS
    kind: Literal["train", "search", "peer"] = "train"
    strips: bool = False

    @property
    def inputs(self) -> str:
        """Names of the vector fields, separated by commas; empty for a network on images."""
        return self.options.get("inputs", "features" if self.model == "mlp" or self.kind == "peer" else "")

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Names of the embeddings that the set needs."""
        return tuple(name for name in self.inputs.split(",") if name not in ("", "features"))


_BFLOAT16 = {"precision": "bf16-mixed"}
ROWS: dict[str, RowSpec] = {
    "mlp": RowSpec("mlp", {"train_view": "full"}),  # more accurate than features of slices
    "mlp on aisfx": RowSpec("mlp", {"inputs": "aisfx"}),
    "mlp on aisfx, searched": RowSpec("mlp", {"inputs": "aisfx"}, kind="search"),
    "mlp on features, aisfx": RowSpec("mlp", {"inputs": "features,aisfx"}),
    "transfer on efficientnet-lite0": RowSpec("transfer", {"backbone": "efficientnet-lite0"}),
    "cnn": RowSpec("cnn", _BFLOAT16, (0, 1)),
    # 8 % of the one-second slices of ESC-10 are digital silence (a third of the sneezes)
    "cnn-plus": RowSpec("cnn-plus", {**_BFLOAT16, "train_view": "full", "epochs": 100}, (0, 1)),
    "cnn-plus on random slices": RowSpec(
        "cnn-plus",
        {
            **_BFLOAT16, "train_view": "slice", "epochs": 100, "random_slices": True,
            "slice_stretch": "0.8,1.25", "mix_powers": 0.5, "random_gain": 6.0,
        },
        (0, 1, 2),
        strips=True,
    ),
    "logistic-regression": RowSpec("logistic-regression", {}, (0,), "peer"),
    "svm": RowSpec("svm", {}, (0,), "peer"),
    "random-forest": RowSpec("random-forest", {}, kind="peer"),
    "hist-gradient-boosting": RowSpec("hist-gradient-boosting", {}, (0,), "peer"),
    "logistic-regression on aisfx": RowSpec("logistic-regression", {"inputs": "aisfx"}, (0,), "peer"),
}  # fmt: skip


def config_of(spec: RowSpec, spectrogram: SpectrogramConfig) -> SpectrogramConfig:
    """Return the configuration of the set of a row; pretrained networks use full clips only."""
    if spec.strips:
        return STRIPS
    if not spec.embeddings and spec.model != "transfer":
        return spectrogram
    return dataclasses.replace(
        spectrogram, slices=0, slice_seconds=None, embeddings=",".join(spec.embeddings)
    )


class Training(NamedTuple):
    """One cross-validation of the table."""

    shard_set: Path
    out: Path
    spec: RowSpec
    options: Options  # in addition to those of `spec`

    def run(self) -> Any:
        """Run or continue the cross-validation and return its result, see `RunResult`."""
        spec, options = self.spec, {**self.spec.options, **self.options}
        if spec.kind == "peer":
            from shardwave.bench.peers.classifiers import cross_validate

            field = "+".join(f"{name}.npy" for name in spec.inputs.split(","))
            return cross_validate(self.shard_set, spec.model, field, options.get("seed", 0))
        config = defaults(spec.model, **{**options, "folds": "all"})
        if spec.kind == "search":
            from shardwave.bench.nested import nested_cross_validate

            return nested_cross_validate(self.shard_set, config, self.out)
        from shardwave.models.training.train import train

        return train(self.shard_set, config, self.out, resume=True, command="accuracy")
