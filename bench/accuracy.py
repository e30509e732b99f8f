"""The accuracy table: each model cross-validated on a data set's folds, over seeds, and what leakage would have flattered.

Every run is `shardwave.models.training.train` with `--folds all` (its epochs are not chosen on the fold that is scored), in a folder of its own, so
that an interrupted table goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shardwave.common.environment import environment
from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.common.progress import bar
from shardwave.models.training.config import defaults
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.storage.atomic import write_bytes, write_json

SPECTROGRAM = SpectrogramConfig(image_size=128, frequency_scale="mel", slices=5, features=True)
SEEDS = {"mlp": (0, 1, 2), "cnn": (0, 1), "cnn-plus": (0, 1)}
OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"train_view": "full"},  # features of a whole clip say more than those of its slices
    "cnn": {"precision": "bf16-mixed"},
    # of ESC-10's one-second slices 8 % are digital silence (of the sneezes' a third), which teaches nothing: whole clips
    "cnn-plus": {"precision": "bf16-mixed", "train_view": "full", "epochs": 100},
}
LEAKING = ("mlp",)  # the models of the experiment on leakage
LEAKS = {"recordings": "recordings apart", "slices": "slices at random"}  # its two ways to draw folds


def run(
    audio: Path | str,
    labels: Path | str | None,
    out: Path | str,
    work: Path | str,
    *,
    seeds: dict[str, Sequence[int]] | None = None,
    leakage: bool = True,
    leaking: Sequence[str] = LEAKING,
    spectrogram: SpectrogramConfig = SPECTROGRAM,
    options: dict[str, Any] | None = None,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Cross-validate every model in `seeds` on the clips of `audio`, and write `accuracy.json` and `accuracy.md` into `out`.

    `work` keeps the shard sets and run folders. `options` changes training options for all runs (device, precision, epochs).
    `jobs` cross-validations run at a time, each in a process of one thread (None: one per core, or one at a time on a GPU).
    """
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions

    out, work = Path(out), Path(work)
    shard_set, chosen = work / "set", SEEDS if seeds is None else seeds
    build(audio, shard_set, spectrogram, BuildOptions(labels=labels))
    trainings = [
        Training(shard_set, work / f"{model}-{seed}", model, {**OPTIONS.get(model, {}), **(options or {}), "seed": seed})
        for model, each in chosen.items()
        for seed in each
    ]
    count = len(trainings)
    for model in leaking if leakage else ():
        for name in LEAKS:
            made = slices_as_clips(shard_set, work / f"set-{name}", at_random=name == "slices")
            trainings.append(Training(made, work / f"{model}-{name}", model, {**(options or {}), "train_view": "full"}))
    done = _train_all(trainings, jobs)
    runs = iter(done[:count])
    leaks = iter(done[count:])
    found = {
        "spectrogram": dataclasses.asdict(spectrogram),
        "rows": [_row(model, [next(runs) for _ in each]) for model, each in chosen.items()],
        "leakage": [_leak(model, [next(leaks) for _ in LEAKS]) for model in leaking if leakage],
        "environment": environment(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "accuracy.json", found)
    write_bytes(out / "accuracy.md", table(found).encode())
    return found


def _row(model: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table: each seed's mean over the folds, and the mean and standard deviation of those over seeds."""
    selected = runs[0]["selected_by"]
    accuracy = [found["scores"][f"test_{selected}_accuracy"] for found in runs]
    return {
        "model": model,
        "score": selected,
        "seeds": [found["seed"] for found in runs],
        "accuracy": accuracy,
        "mean": statistics.mean(accuracy),
        "deviation": statistics.stdev(accuracy) if len(accuracy) > 1 else None,
        "f1": statistics.mean(found["scores"][f"test_{selected}_f1"] for found in runs),
        "validation": statistics.mean(found["scores"][f"val_{selected}_accuracy"] for found in runs),
        "folds": [[entry["scores"][f"test_{selected}_accuracy"] for entry in found["per_fold"]] for found in runs],
        "epochs": [[entry["epochs"] for entry in found["per_fold"]] for found in runs],
        "parameters": runs[0]["parameters"],
        "minutes": [found["seconds"]["total"] / 60 for found in runs],
        "params": runs[0]["params"],
        "train_view": runs[0]["config"]["train_view"],
        "precision": runs[0]["config"]["precision"],
    }


def _leak(model: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Single slices scored by the same protocol in folds drawn slice by slice, and in folds that keep a recording together."""
    accuracy = {
        kind: {
            "accuracy": found["scores"]["test_full_accuracy"],
            "folds": [entry["scores"]["test_full_accuracy"] for entry in found["per_fold"]],
        }
        for kind, found in zip(LEAKS.values(), runs, strict=True)
    }
    return {"model": model, "of": "single slices", **accuracy}


class Training(NamedTuple):
    """One cross-validation of the table."""

    shard_set: Path
    out: Path
    model: str
    options: dict[str, Any]

    def run(self) -> dict[str, Any]:
        """What its result.json holds; one that was interrupted goes on."""
        from shardwave.models.training.train import train

        config = defaults(self.model, **{**self.options, "folds": "all"})
        return train(self.shard_set, config, self.out, resume=True, command="accuracy")


def _train_all(trainings: Sequence[Training], jobs: int | None) -> list[dict[str, Any]]:
    """Results in order. A process has one core: small networks gain little from a second one."""
    from shardwave.bench.harness.pool import Pool
    from shardwave.common.environment import cores
    from shardwave.search.config import count_gpus

    pool = Pool(min(jobs or (1 if count_gpus("auto") else cores()), len(trainings)))
    try:
        done = []
        with bar(total=len(trainings), desc="cross-validations", unit="run", every=1) as progress:
            for training, found in zip(trainings, pool.map(trainings, _worker), strict=True):
                done.append(found)
                progress.update()
                say(f"accuracy: {training.out.name}, {found['seconds']['total'] / 60:.1f} min")
        return done
    finally:
        pool.close()


def _worker() -> Callable[[Training], dict[str, Any]]:
    os.environ["SHARDWAVE_QUIET"] = "1"  # the bars of several processes would write over each other
    return Training.run


def slices_as_clips(shard_set: Path, out: Path, *, at_random: bool, seed: int = 0) -> Path:
    """A set in which every slice is a clip of its own, in its recording's fold or in one drawn for it (stratified by class)."""
    from shardwave.shards.build.writer import Row, write_set
    from shardwave.shards.format.layout import MANIFEST
    from shardwave.shards.read.open_set import open_set

    source = open_set(shard_set)
    names = source.splits
    if not all(name.startswith("fold") for name in names) or "slice" not in source.views:
        raise UsageError(f"the experiment on leakage needs a shard set with folds and slices, got {shard_set}")
    if (out / MANIFEST).exists():
        return out
    view = source.view(names, "slice")
    metas = [view.meta(row) for row in range(len(view))]
    folds = np.array([f"fold{meta['fold']}" for meta in metas])
    if at_random:
        rng = np.random.default_rng(seed)
        for label in np.unique(view.cls):
            rows = np.flatnonzero(view.cls == label)
            folds[rng.permutation(rows)] = np.resize(names, len(rows))
    fields = {name: (field["dtype"], tuple(field["shape"])) for name, field in source.fields.items() if name.endswith("npy")}

    def rows_of(fold: str) -> Iterator[Row]:
        for row in np.flatnonzero(folds == fold).tolist():
            arrays = {name: values[0] for name, values in view.gather([row], tuple(fields)).items()}
            meta = {**metas[row], "view": "full", "fold": int(fold.removeprefix("fold"))}
            yield Row(view.key(row), int(view.cls[row]), int(row), meta, arrays)

    keep = ("engine", "device", "seed", "classes", "feature_names", "audio_seconds")
    about = {name: source.manifest[name] for name in keep} | {"clips": len(view)}
    about["config"] = {**source.manifest["config"], "slices_as_clips": "at random" if at_random else "by recording"}
    write_set(out, ((fold, "full", 0, rows_of(fold)) for fold in names), fields, about, samples=len(view))
    return out


def table(found: dict[str, Any]) -> str:
    """The Markdown of an accuracy.json; a row that was measured apart from the others has an environment of its own."""
    measured: dict[str, list[str]] = {}
    lines = [
        "| model | score | accuracy, test folds | seeds | per fold (seed 0) | F1 | choosing folds | parameters | precision "
        "| minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        machine = row.get("environment", found["environment"])
        versions = f"torch {machine['versions'].get('torch')}; {machine['commit']}; {machine['date']}"
        about = f"{machine['cpu']}, {machine['cores']} cores; {versions}"
        measured.setdefault(about, []).append(row["model"])
        spread = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
        folds = ", ".join(f"{100 * value:.1f}" for value in row["folds"][0])
        lines.append(
            f"| {row['model']} | {row['score']} | {100 * row['mean']:.2f}{spread} | {len(row['seeds'])} | {folds} "
            f"| {100 * row['f1']:.2f} | {100 * row['validation']:.2f} | {row['parameters']:,} "
            f"| {row['precision']} | {statistics.mean(row['minutes']):.2g} |"
        )
    lines += [
        "",
        "In per cent. Each fold k is scored once, by a model trained on all the others; the number of epochs comes from a "
        "training that validated on fold k mod n + 1 without fold k (its last epoch within one standard error of its best). The "
        "models' default settings were compared by their mean over such validation folds, each of which is another round's test "
        "fold, and the rule for the epochs replaced another after a first such table had been seen: the scores are that much "
        "kinder than on a data set never seen. ± is the deviation over seeds; minutes are of one run, on one core at most.",
    ]
    for leak in found["leakage"]:
        apart, random = leak["recordings apart"]["accuracy"], leak["slices at random"]["accuracy"]
        lines += [
            "",
            f"Leakage: `{leak['model']}` on {leak['of']} reaches {100 * random:.2f} where folds are drawn slice by slice, and "
            f"{100 * apart:.2f} where a recording's slices stay together: {100 * (random - apart):.1f} points flattered.",
        ]
    for about, models in measured.items():
        lines += ["", f"{', '.join(models)}: {about}."]
    return "\n".join(lines) + "\n"
