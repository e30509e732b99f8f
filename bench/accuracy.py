"""Accuracy table: models cross-validated on the folds of a data set, over seeds, and the effect of leakage.

Each cross-validation is a call of `shardwave.models.training.train` with `--folds all`, which selects the
epochs without the fold that is scored. Each has its own folder, so that an interrupted measurement can be
continued.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from shardwave.bench.accuracy_rows import IMAGES, ROWS, STRIPS, Options, RowSpec, Training, config_of
from shardwave.bench.nested import TRIALS
from shardwave.common import log
from shardwave.common.environment import Environment, environment
from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.common.progress import bar
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.storage.atomic import write_bytes, write_json

Leak = dict[str, Any]  # see `_leak`
Result = dict[str, Any]  # content of result.json, see `shardwave.models.runs.records.RunResult`


class Row(TypedDict):
    """Row of the table: a model, cross-validated with several seeds."""

    model: str
    score: str
    seeds: list[int]
    accuracy: list[float]  # mean over the test folds, by seed
    mean: float  # of `accuracy`
    deviation: float | None  # standard deviation of `accuracy`; None for one seed
    f1: float
    validation: float | None  # None for scikit-learn
    folds: list[list[float]]  # accuracy by seed and fold
    epochs: list[list[int | None]]  # by seed and fold
    parameters: int | None
    minutes: list[float]  # by seed
    params: Options
    train_view: str
    precision: str
    chosen: NotRequired[list[list[Options]]]  # settings that a search chose, by seed and fold
    audio_to_set: NotRequired[float]  # seconds to build the set
    environment: NotRequired[Environment]  # of a row that was measured at another time


class Accuracy(TypedDict):
    """Content of accuracy.json."""

    spectrogram: dict[str, Any] | None  # fields of `SpectrogramConfig`; None for a table of features
    rows: list[Row]
    leakage: list[Leak]  # see `_leak`
    environment: Environment


LEAKING = ("mlp",)  # models of the leakage experiment
LEAKS = {"recordings": "recordings apart", "slices": "slices at random"}  # its two assignments of folds


def run(
    audio: Path | str,
    labels: Path | str | None,
    out: Path | str,
    work: Path | str,
    *,
    rows: Sequence[str] = tuple(ROWS),
    seeds: Sequence[int] | None = None,
    leakage: bool = True,
    leaking: Sequence[str] = LEAKING,
    spectrogram: SpectrogramConfig = IMAGES,
    options: Options | None = None,
    jobs: int | None = None,
) -> Accuracy:
    """Cross-validate models and write `accuracy.json` and `accuracy.md`.

    Rows and the leakage of an earlier `accuracy.json` stay if they are not measured again.

    Args:
        audio: Folder of audio.
        labels: CSV file of labels with folds.
        out: Folder of the two files.
        work: Folder of the shard sets and run folders.
        rows: Names of `ROWS`.
        seeds: Seeds that replace those of the rows.
        leakage: Whether to run the leakage experiment.
        leaking: Models of the leakage experiment.
        spectrogram: Spectrogram configuration.
        options: Training options of all runs.
        jobs: Cross-validations at the same time, each in a process with one thread; None is one per core, or
            one on a GPU.

    Returns:
        The contents of `accuracy.json`.
    """
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions

    out, work = Path(out), Path(work)
    specs = {name: ROWS[name] for name in rows}
    if seeds is not None:
        specs = {name: spec._replace(seeds=tuple(seeds)) for name, spec in specs.items()}
    sets: dict[SpectrogramConfig, tuple[Path, float]] = {}
    needed = [config_of(spec, spectrogram) for spec in specs.values()] + [spectrogram] * leakage
    for config in dict.fromkeys(needed):
        names = [entry.split(" ")[0] for entry in config.embedding_entries]
        names += ["strips"] if config == STRIPS else [] if config.slices else ["full"]
        path, begin = work / "-".join(["set", *names]), time.perf_counter()
        layout = STRIP if config == STRIPS else VIEWS
        build(audio, path, config, BuildOptions(labels=labels, layout=layout))
        duration = path.with_name(f"{path.name}.seconds.json")  # of the first run
        if not duration.exists():
            write_json(duration, time.perf_counter() - begin)
        sets[config] = path, json.loads(duration.read_text())
    places = {name: sets[config_of(spec, spectrogram)] for name, spec in specs.items()}
    trainings = [
        Training(places[name][0], work / f"{slug(name)}-{seed}", spec, {**(options or {}), "seed": seed})
        for name, spec in specs.items()
        for seed in spec.seeds
    ]
    count = len(trainings)
    for model in leaking if leakage else ():
        for name in LEAKS:
            at_random = name == "slices"
            slice_set = slices_as_clips(sets[spectrogram][0], work / f"set-{name}", at_random=at_random)
            spec = RowSpec(model, {"train_view": "full"})
            trainings.append(Training(slice_set, work / f"{model}-{name}", spec, options or {}))
    results = train_all(trainings, jobs)
    runs = iter(results[:count])
    leaks = iter(results[count:])
    measured = [
        table_row(name, [next(runs) for _ in spec.seeds], places[name][1]) for name, spec in specs.items()
    ]
    leaked = [_leak(model, [next(leaks) for _ in LEAKS]) for model in leaking if leakage]
    return write(out / "accuracy.json", measured, leaked, spectrogram)


def write(
    path: Path, measured: list[Row], leaked: list[Leak], spectrogram: SpectrogramConfig | None
) -> Accuracy:
    """Write a table as JSON and as Markdown, in the same folder.

    Earlier rows and leakage that were not measured again stay.

    Args:
        path: The JSON file.
        measured: The rows.
        leaked: Results of the leakage experiment; empty: the earlier ones.
        spectrogram: Configuration of the set; None for a table of features.

    Returns:
        The contents of the JSON file.
    """
    contents = _with_earlier(path, measured, leaked, spectrogram, environment())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, contents)
    write_bytes(path.with_suffix(".md"), table(contents).encode())
    return contents


def slug(name: str) -> str:
    """Return the name of a row as part of a folder name."""
    return name.replace(", ", "-").replace(" ", "-")


def _with_earlier(
    path: Path,
    measured: list[Row],
    leaked: list[Leak],
    spectrogram: SpectrogramConfig | None,
    machine: Environment,
) -> Accuracy:
    """Return the contents of the file, in the order of ROWS; measured rows replace earlier ones."""
    rows = {row["model"]: row for row in measured}
    if path.exists():
        earlier: Accuracy = json.loads(path.read_text(encoding="utf-8"))
        for row in earlier["rows"]:
            rows.setdefault(
                row["model"], {**row, "environment": row.get("environment", earlier["environment"])}
            )
        leaked = leaked or earlier["leakage"]
    order = [*ROWS, *(name for name in rows if name not in ROWS)]
    return {
        "spectrogram": None if spectrogram is None else dataclasses.asdict(spectrogram),
        "rows": [rows[name] for name in order if name in rows],
        "leakage": leaked,
        "environment": machine,
    }


def table_row(model: str, runs: list[Result], seconds: float) -> Row:
    """Return a row of the table: means over the folds by seed, and their mean and standard deviation.

    Args:
        model: Name of the row.
        runs: Results of its cross-validations, one per seed.
        seconds: Time of building the set.
    """
    selected = runs[0]["selected_by"]
    accuracy = [result["scores"][f"test_{selected}_accuracy"] for result in runs]
    name = f"val_{selected}_accuracy"
    validation = [result["scores"][name] for result in runs if name in result["scores"]]
    chosen = [[entry.get("params", {}) for entry in result["per_fold"]] for result in runs]
    row: Row = {
        "model": model,
        "score": selected,
        "seeds": [result["seed"] for result in runs],
        "accuracy": accuracy,
        "mean": statistics.mean(accuracy),
        "deviation": statistics.stdev(accuracy) if len(accuracy) > 1 else None,
        "f1": statistics.mean(result["scores"][f"test_{selected}_f1"] for result in runs),
        "validation": statistics.mean(validation) if validation else None,
        "folds": [
            [entry["scores"][f"test_{selected}_accuracy"] for entry in result["per_fold"]] for result in runs
        ],
        "epochs": [[entry["epochs"] for entry in result["per_fold"]] for result in runs],
        "parameters": runs[0]["parameters"],
        "minutes": [result["seconds"]["total"] / 60 for result in runs],
        "params": runs[0]["params"],
        "train_view": runs[0]["config"]["train_view"],
        "precision": runs[0]["config"]["precision"],
        "audio_to_set": seconds,
    }
    return {**row, "chosen": chosen} if any(map(any, chosen)) else row


def _leak(model: str, runs: Sequence[Result]) -> Leak:
    """Return scores of single slices with folds drawn per slice, and with folds drawn per recording."""
    accuracy = {
        kind: {
            "accuracy": result["scores"]["test_full_accuracy"],
            "folds": [entry["scores"]["test_full_accuracy"] for entry in result["per_fold"]],
        }
        for kind, result in zip(LEAKS.values(), runs, strict=True)
    }
    return {"model": model, "of": "single slices", **accuracy}


def train_all(trainings: Sequence[Training], jobs: int | None) -> list[Result]:
    """Run cross-validations in worker processes, and return their results in order.

    Each process has one thread: a second one speeds up small networks little.

    Args:
        trainings: The cross-validations.
        jobs: Number of processes; None: one per core, or one on a GPU.
    """
    from shardwave.bench.harness.pool import Pool
    from shardwave.common.environment import cores
    from shardwave.search.gpus import count_gpus

    pool = Pool(min(jobs or (1 if count_gpus("auto") else cores()), len(trainings)))
    try:
        results = []
        with bar(total=len(trainings), desc="cross-validations", unit="run", every=1) as progress:
            for training, result in zip(trainings, pool.map(trainings, _worker), strict=True):
                results.append(result)
                progress.update()
                say(f"accuracy: {training.out.name}, {result['seconds']['total'] / 60:.1f} min")
        return results
    finally:
        pool.close()


def _worker() -> Callable[[Training], Result]:
    os.environ[log.QUIET] = "1"  # progress bars of several processes would overwrite each other
    log.set_up()
    return Training.run


def slices_as_clips(shard_set: Path, out: Path, *, at_random: bool, seed: int = 0) -> Path:
    """Write a shard set in which every slice is a clip, and return its path.

    Args:
        shard_set: Set with folds and slices.
        out: Folder of the new set; a finished one is kept.
        at_random: Whether a slice gets a random fold, stratified by class, instead of the fold of its
            recording.
        seed: Seed of the random folds.

    Raises:
        UsageError: The set has no folds or no slices.
    """
    from shardwave.shards.build.writer import write_set
    from shardwave.shards.format.layout import MANIFEST
    from shardwave.shards.format.manifest import SetDescription
    from shardwave.shards.format.shard_writer import Row
    from shardwave.shards.read.open_set import open_set

    source = open_set(shard_set)
    names = source.splits
    if not all(name.startswith("fold") for name in names) or "slice" not in source.views:
        raise UsageError(
            f"the leakage experiment needs a shard set with folds and slices, got {shard_set}: build it "
            "with both"
        )
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
    fields = {
        name: (field["dtype"], tuple(field["shape"]))
        for name, field in source.fields.items()
        if name.endswith("npy")
    }

    def rows_of(fold: str) -> Iterator[Row]:
        for row in np.flatnonzero(folds == fold).tolist():
            arrays = {name: values[0] for name, values in view.gather([row], tuple(fields)).items()}
            meta = {**metas[row], "view": "full", "fold": int(fold.removeprefix("fold"))}
            yield Row(view.key(row), int(view.cls[row]), int(row), meta, arrays)

    description: SetDescription = {
        "config": {
            **(source.manifest["config"] or {}),
            "slices_as_clips": "at random" if at_random else "by recording",
        },
        "engine": source.manifest["engine"],
        "device": source.manifest["device"],
        "seed": source.manifest["seed"],
        "classes": source.classes,
        "feature_names": source.feature_names,
        "clips": len(view),
        "audio_seconds": source.manifest["audio_seconds"],
    }
    shards = ((fold, "full", 0, rows_of(fold)) for fold in names)
    write_set(out, shards, fields, description, samples=len(view))
    return out


def table(contents: Accuracy) -> str:
    """Return the Markdown of an `accuracy.json`.

    Args:
        contents: Contents of the file; a row that was measured later has its own `environment`.
    """
    measured: dict[str, list[str]] = {}
    lines = [
        "| model | score | accuracy, test folds | seeds | per fold (seed 0) | F1 | validation folds | "
        "parameters | precision | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in contents["rows"]:
        machine = row.get("environment", contents["environment"])
        versions = f"torch {machine['versions'].get('torch')}; {machine['commit']}; {machine['date']}"
        origin = f"{machine['cpu']}, {machine['cores']} cores; {versions}"
        measured.setdefault(origin, []).append(row["model"])
        spread = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
        folds = ", ".join(f"{100 * value:.1f}" for value in row["folds"][0])
        validation = "–" if row["validation"] is None else f"{100 * row['validation']:.2f}"
        parameters = "–" if row["parameters"] is None else f"{row['parameters']:,}"
        lines.append(
            f"| {row['model']} | {row['score']} | {100 * row['mean']:.2f}{spread} | {len(row['seeds'])} | "
            f"{folds} | {100 * row['f1']:.2f} | {validation} | {parameters} | "
            f"{row['precision']} | {statistics.mean(row['minutes']):.2g} |"
        )
    lines += [
        "",
        "In per cent. Fold k is scored once, by a model trained on all other folds; the number of epochs "
        "comes from a training that validates on fold k mod n + 1 without fold k (the last epoch within one "
        "standard error of the best). The scores are optimistic for two reasons: the default settings of the "
        "models were chosen by their mean over these validation folds, each of which is the test fold of "
        "another round, and the rule for the number of epochs was changed after an earlier table. "
        "± is the standard deviation over seeds; minutes are of one run on at most one core.",
    ]
    for row in contents["rows"]:
        if "chosen" in row:
            seconds, minutes = row.get("audio_to_set", 0.0), statistics.mean(row["minutes"])
            lines += [
                "",
                f"`{row['model']}`: in each round, a search of {TRIALS} trials chooses the settings on the "
                "validation fold, so that nothing is chosen on a fold that is scored. From audio to this "
                f"score: {seconds:.0f} s for the set on all cores, then {minutes:.1f} min for the searches "
                "and trainings of the five rounds on one core.",
            ]
    for leak in contents["leakage"]:
        apart, random = leak["recordings apart"]["accuracy"], leak["slices at random"]["accuracy"]
        lines += [
            "",
            f"Leakage: `{leak['model']}` on {leak['of']} reaches {100 * random:.2f} with folds drawn slice "
            f"by slice, and {100 * apart:.2f} with all slices of a recording in one fold, a difference of "
            f"{100 * (random - apart):.1f} points.",
        ]
    for origin, models in measured.items():
        lines += ["", f"{', '.join(models)}: {origin}."]
    return "\n".join(lines) + "\n"
