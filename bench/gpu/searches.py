"""From audio to a report: a build, a search of each model, a report; and a search of the CNN at 512 x 512."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardwave.bench.gpu import device
from shardwave.bench.gpu.cases import ALL, CNN
from shardwave.bench.gpu.cases import SEARCHES as STAGE
from shardwave.bench.gpu.sets import genre_audio, genre_set
from shardwave.bench.gpu.training import MODELS
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import NO_CUDA, Scope, missing
from shardwave.bench.report.page import write
from shardwave.common.messages import muted
from shardwave.search.config import SearchConfig
from shardwave.search.run import search

UNIT = "s"
SHARING = 4  # trials that share a GPU
ORDER = ("cnn", *(model for model in MODELS if model != "cnn"))  # the CNN has goals of its own


def run(scope: Scope) -> Iterator[Record]:
    """Search each model in 20 trials of 10 epochs on 1,000 clips; vgg16 has no pretrained weights.

    At last, trials of the CNN share the GPU and one copy of the samples there.

    Yields:
        Records in seconds.
    """
    genre_audio(scope)
    small, large = (32, 64) if scope.quick else (128, 512)
    start = time.perf_counter()
    path = genre_set(scope, small)
    yield Record(
        STAGE, f"build at {small} x {small}", "ours", UNIT, [time.perf_counter() - start], _params(scope)
    )
    runs = []
    for model in ORDER:
        out = scope.folder / "searches" / model
        yield _search(scope, path, model, small, out)
        runs.append(out)
    with muted():
        write(runs, scope.folder / "searches" / "report.html")
    yield Record(STAGE, ALL, "ours", UNIT, [time.perf_counter() - start], _params(scope))
    yield _search(scope, genre_set(scope, large), "cnn", large, scope.folder / "searches" / "cnn-large")
    name, shared = f"{CNN.format(small)}, {SHARING} trials on a GPU", scope.folder / "searches" / "cnn-shared"
    if scope.cuda:
        record = _search(scope, path, "cnn", small, shared, gpus_per_trial=1 / SHARING)
        yield dataclasses.replace(record, case=name)
    else:
        yield Record(STAGE, name, "ours", UNIT, skipped=NO_CUDA)


def _params(scope: Scope) -> dict[str, Any]:
    return {
        "classes": scope.pick(3, 10),
        "clips_per_class": scope.pick(4, 100),
        "device": device.name(scope.cuda),
    }


def _search(scope: Scope, path: Path, model: str, size: int, out: Path, **options: Any) -> Record:
    """Search a model and return the record of its seconds, with the device that trained and its memory."""
    options |= {"weights": "none"} if model == "vgg16" else {}
    backend = "random" if missing("optuna", "") else "optuna"
    chosen = SearchConfig(
        model,
        backend,
        trials=scope.pick(2, 20),
        epochs=scope.pick(1, 10),
        device="auto" if scope.cuda else "cpu",
        **options,
    )
    budget, start = chosen.budget(), time.perf_counter()
    with device.PeakMemory() as memory, muted():
        result = search(path, chosen, out)
    best = result["best"]
    params = {
        **_params(scope), "model": model, "trials": result["trials"],
        "jobs": budget.jobs, "gpus_per_trial": budget.gpus_per_trial,
        "trained_on": "cuda" if budget.gpus_per_trial else "cpu", "peak_gpu_memory_gb": memory.gigabytes,
        "backend": backend, "best": best and best["value"], "seconds_by_part": result["seconds"],
    }  # fmt: skip
    case = CNN.format(size) if model == "cnn" else f"search of {model} at {size} x {size}"
    return Record(STAGE, case, "ours", UNIT, [time.perf_counter() - start], params)
