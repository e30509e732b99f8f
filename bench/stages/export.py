"""Samples of five-second clips to probabilities: our predictor, and the exported file in ONNX Runtime."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.stages.training import config_of, labelled_set
from shardwave.models.evaluation.audio_classifier import AudioClassifier
from shardwave.models.evaluation.export import export
from shardwave.models.runs import checkpoint
from shardwave.models.training.train import train

STAGE, UNIT = "export", "ms"
SECONDS = 5
IMAGE_SIZE = 64


def run(scope: Scope) -> Iterator[Record]:
    """Measure the classification of one clip at a time on the CPU, with each library's number of threads.

    Yields:
        Records in milliseconds per clip.
    """
    path = labelled_set(scope, IMAGE_SIZE, scope.pick(8, 20))
    absent = missing("onnxruntime", "bench") or missing("onnxscript", "onnx")
    for model in ("cnn", "cnn-plus"):
        folder = scope.subfolder("export") / model
        train(path, config_of(model, epochs=1, device="cpu", train_view="full"), folder)
        classifier = AudioClassifier(checkpoint.load(folder / checkpoint.NAME), "cpu")
        rate = classifier.config.sample_rate
        clip = np.random.default_rng(0).normal(0, 0.1, SECONDS * rate).astype(np.float32)
        params = {"seconds": SECONDS, "image_size": IMAGE_SIZE}
        name = f"{model}: ONNX Runtime"
        ours = Case(f"{model}: predictor", "ours", functools.partial(classifier, [clip]), 1.0, params)
        if absent is not None:
            yield from timed(STAGE, UNIT, [ours, Case(name, "ours", skipped=absent)], scope.plan)
            continue
        import onnxruntime

        export(folder, folder / "model.onnx")
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        exported = Case(name, "ours", functools.partial(session.run, None, {"waveform": clip}), 1.0, params)
        yield from timed(STAGE, UNIT, [ours, exported], scope.plan)
