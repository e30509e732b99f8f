"""Searches from a fresh process to their result: the MLP's space on features, per backend, beside stock Ray Tune and Optuna."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import process
from bench.record import Record
from bench.scope import Scope, missing
from bench.timing import Case, Plan, Seconds, measure

STAGE = "search"
LONG = 60  # trials; of so many, starting takes a small part
ESC10 = (
    Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"
)  # real clips with official folds, where they are at hand


class Seen(NamedTuple):
    """One search in a fresh process, whose start is second 0."""

    values: list[tuple[float, float]]  # (second, value) of every epoch of every trial
    busy: float  # seconds in training steps and validation, divided by the jobs
    process: float  # seconds until the process ended

    @property
    def seconds(self) -> float:
        """Until the last trial's last value: imports and start-up are in it, writing results and drawing figures are not."""
        return max(at for at, _ in self.values)


def run(scope: Scope) -> Iterator[Record]:
    """Seconds per trial, all that starting costs included; overhead per trial; time to the best value; where the time went."""
    trials, epochs, jobs = scope.pick(2, 20), scope.pick(2, 10), min(2, scope.workers)
    path, fold, source = _set(scope)
    folder = scope.room("searches")
    arrays = _arrays(path, fold, folder / "features.npz")
    seen: dict[str, list[Seen]] = {}
    systems: list[tuple[str, str, int, int, Callable[[Path, int], Seen]]] = []
    for kind, at_once in (("ray", jobs), ("optuna", 1)):
        name = f"stock {'Ray Tune' if kind == 'ray' else 'Optuna'}, Lightning, {at_once} at a time"
        absent = _absent(kind, scope)
        if absent:
            yield Record(STAGE, name, "peer", "s/trial", skipped=absent)
        else:
            systems.append((name, "peer", at_once, trials, _stock(kind, arrays, at_once, trials, epochs)))
    for backend, at_once, count, options in (
        ("ray", jobs, trials, ()),
        ("optuna", 1, trials, ()),
        ("optuna", jobs, trials, ()),
        ("optuna", jobs, trials, ("--no-fused",)),
        ("optuna", jobs, LONG, ()),
        ("optuna", jobs, LONG, ("--no-fused",)),
        ("random", jobs, trials, ()),
    ):
        absent = _absent(backend, scope)
        name = f"ours: {backend}, {at_once} job{'s' * (at_once > 1)}{', not fused' if options else ''}"
        name += f", {count} trials" if count == LONG else ""
        if absent:
            yield Record(STAGE, name, "ours", "s/trial", skipped=absent)
        elif not (scope.quick and (options or count == LONG or backend == "random" or (backend == "optuna" and at_once > 1))):
            systems.append((name, "ours", at_once, count, _ours(path, fold, backend, at_once, options, count, epochs)))
    cases = []
    for name, role, at_once, count, search in systems:
        seen[name] = []

        def once(name: str = name, search: Callable[[Path, int], Seen] = search) -> Seconds:
            number = len(seen[name])
            seen[name].append(search(folder / f"{list(seen).index(name)}-{number}", number))
            return Seconds(seen[name][-1].seconds)

        slow = role == "peer" or (count == LONG and "not fused" in name)  # the minutes go to repeats of the others
        cases.append(Case(name, role, once, count, {"jobs": at_once, "trials": count}, once=scope.quick or slow))
    measure(cases, Plan(minimum=3, maximum=3, seconds=scope.pick(1, 240), limit=scope.pick(2, 480), warmup=0))
    for case in cases:
        yield from _records(case, seen[case.name], case.params["trials"], epochs, source)


def _absent(kind: str, scope: Scope) -> str | None:
    """Why searches by Ray do not run, if they do not."""
    if kind != "ray":
        return None
    return "left out of the quick run: starting Ray takes too long" if scope.quick else missing("ray", "ray")


def _records(case: Case, seen: list[Seen], trials: int, epochs: int, source: str) -> Iterator[Record]:
    """Seconds and overhead per trial, seconds to the best value, where the time went; for ours, seconds of the whole command."""
    middle = sorted(seen, key=lambda one: one.seconds)[len(seen) // 2]
    parts = {
        "training steps and validation": middle.busy,
        "overhead: processes, imports, data, scheduling": middle.seconds - middle.busy,
    }
    about = {
        "jobs": case.params["jobs"],
        "trials": trials,
        "epochs": epochs,
        "data": source,
        "epochs_run": [len(one.values) for one in seen],
    }

    def record(name: str, unit: str, values: list[float], group: str, **more: Any) -> Record:
        return Record(STAGE, f"{case.name}{name}", case.role, unit, values, {**about, "group": group, **more})

    yield record(
        "",
        "s/trial",
        [one.seconds / trials for one in seen],
        "Seconds per trial, start-up included",
        parts=parts,
        whole="A search",
    )
    yield record(": overhead", "s/trial", [(one.seconds - one.busy) / trials for one in seen], "Overhead per trial")
    best = [max(value for _, value in one.values) for one in seen]
    rates = [60 * trials / (one.seconds - min(at for at, _ in one.values)) for one in seen]
    yield record(": trials a minute", "trials/min", rates, "Trials a minute from the first value to the last")
    to_best = [min(at for at, value in one.values if value == top) for one, top in zip(seen, best, strict=True)]
    yield record(": to its best value", "s", to_best, "Seconds to the best value", best=best)
    if case.role == "ours":
        yield record(": whole command", "s", [one.process for one in seen], "From the command line to result.json and figures")


def _ours(
    path: Path, fold: int | None, backend: str, jobs: int, options: tuple[str, ...], trials: int, epochs: int
) -> Callable[[Path, int], Seen]:
    def search(out: Path, seed: int) -> Seen:
        command = [
            *process.CLI,
            "search",
            str(path),
            "--model",
            "mlp",
            "--backend",
            backend,
            "--out",
            str(out),
            "--trials",
            str(trials),
        ]
        command += ["--epochs", str(epochs), "--jobs", str(jobs), "--seed", str(seed), *options]
        command += ["--train-view", "slice"]  # as the peers do
        command += ["--val-fold", str(fold)] if fold is not None else []
        watched = process.watch(command)
        result = json.loads((out / "result.json").read_text())
        lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
        moments = [
            (line["start"] + at - watched.began, value)
            for line in lines
            for at, value in zip(line["times"], line["values"], strict=True)
        ]
        return Seen(moments, (result["seconds"]["step"] + result["seconds"]["validation"]) / jobs, watched.seconds)

    return search


def _stock(kind: str, arrays: Path, jobs: int, trials: int, epochs: int) -> Callable[[Path, int], Seen]:
    def search(out: Path, seed: int) -> Seen:
        told = out.with_suffix(".json")
        command = [
            sys.executable,
            "-m",
            "bench.peers.search",
            kind,
            str(arrays),
            str(told),
            *map(str, (trials, epochs, jobs, seed)),
        ]
        watched = process.watch(command)
        found: list[dict[str, Any]] = json.loads(told.read_text())
        moments = [(at - watched.began, value) for trial in found for at, value in zip(trial["at"], trial["values"], strict=True)]
        return Seen(moments, sum(trial["busy"] for trial in found) / jobs, watched.seconds)

    return search


def _set(scope: Scope) -> tuple[Path, int | None, str]:
    """A shard set with features, the fold to validate on, and what it is: ESC-10 where it is at hand, or the bench's clips."""
    from bench.stages.training import labelled_set
    from preprocess.config import SpectrogramConfig
    from shards.build import build
    from shards.build_options import BuildOptions

    if scope.quick or not (ESC10 / "labels.csv").exists():
        return labelled_set(scope, 128, scope.pick(8, 60)), None, scope.audio_source
    path = scope.room("esc10") / "set"
    if not (path / "manifest.json").exists():
        config = SpectrogramConfig(image_size=64, features=True)
        build(ESC10, path, config, BuildOptions(labels=ESC10 / "labels.csv", engine="numba", device="cpu", workers=scope.workers))
    return path, 1, "ESC-10, fold 1 validates"


def _arrays(path: Path, fold: int | None, out: Path) -> Path:
    """The same features as the peers' arrays: standardised slices to train on, whole clips to validate on."""
    from models.partitions import resolve
    from shards.shardset import ShardSet

    shard_set = ShardSet.open(path)
    roles = resolve(shard_set.partitions, fold, None)
    train, val = shard_set.view(roles.train, "slice"), shard_set.view(roles.val, "full")
    values = {
        name: view.gather(np.arange(len(view)), ("features.npy",))["features.npy"]
        for name, view in (("train", train), ("val", val))
    }
    mean, std = values["train"].mean(0), values["train"].std(0)
    scaled = {f"{name}_x": ((rows - mean) / np.where(std > 0, std, 1)).astype(np.float32) for name, rows in values.items()}
    np.savez(out, **scaled, train_y=train.cls, val_y=val.cls, classes=len(shard_set.classes))
    return out
