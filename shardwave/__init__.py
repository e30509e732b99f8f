"""Build shard sets of spectrograms from audio, and train and tune classifiers on them.

The functions and classes in `__all__` are the public Python API:

    import shardwave

    shardwave.build("my-audio", "sets/mine", features=True)
    run = shardwave.train("sets/mine", "mlp", "runs/mlp", epochs=20)
    predictions = shardwave.predict("runs/mlp", "new-audio")

They are imported when they are first used, so that `import shardwave` is fast.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Idle OpenMP threads sleep instead of spinning, because spinning threads slow down other programs. The OpenMP
# runtimes of GNU and of LLVM (Intel) read these variables when torch loads them; they must be set before any
# module imports torch.
for _name, _value in {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}.items():
    os.environ.setdefault(_name, _value)

if TYPE_CHECKING:
    from shardwave.api import (
        Prediction,
        Spectrogram,
        as_dataset,
        audit,
        build,
        evaluate,
        export,
        load_model,
        open_set,
        predict,
        report,
        spectrogram,
        train,
        tune,
    )
    from shardwave.models.training.config import TrainConfig
    from shardwave.preprocess.config import SpectrogramConfig
    from shardwave.search.config import SearchConfig
    from shardwave.search.space import Choice, Grid, LogUniform, Uniform
    from shardwave.shards.read.loader import Loader
    from shardwave.shards.read.shardset import ShardSet, View

_MODULES = {
    "SpectrogramConfig": "preprocess.config",
    "TrainConfig": "models.training.config",
    "SearchConfig": "search.config",
    "Choice": "search.space",
    "Grid": "search.space",
    "LogUniform": "search.space",
    "Uniform": "search.space",
    "Loader": "shards.read.loader",
    "ShardSet": "shards.read.shardset",
    "View": "shards.read.shardset",
}

__all__ = [
    "Choice",
    "Grid",
    "Loader",
    "LogUniform",
    "Prediction",
    "SearchConfig",
    "ShardSet",
    "Spectrogram",
    "SpectrogramConfig",
    "TrainConfig",
    "Uniform",
    "View",
    "as_dataset",
    "audit",
    "build",
    "evaluate",
    "export",
    "load_model",
    "open_set",
    "predict",
    "report",
    "spectrogram",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'shardwave' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"shardwave.{_MODULES.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
