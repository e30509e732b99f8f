"""Searches from a fresh process to their result: the MLP's space on features, per backend, beside stock Ray Tune and Optuna."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shardwave.bench.harness import process
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.harness.timing import Case, Plan, Seconds, measure

STAGE = "search"
LONG = 60  # trials; of so many, starting takes a small part
ESC10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"  # real clips with folds, where they are at hand


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
    slow_ray = "left out of the quick run: starting Ray takes too long" if scope.quick else missing("ray", "ray")
    seen: dict[str, list[Seen]] = {}

    def case(name: str, command: Sequence[str], at_once: int, count: int = trials, *, slow: bool = False) -> Case:
        def search() -> Seconds:
            out = Path(tempfile.mkdtemp(dir=folder))
            seen[name].append(watch(command, out, trials=count, epochs=epochs, jobs=at_once, seed=len(seen[name])))
            return Seconds(seen[name][-1].seconds)

        seen[name] = []
        role, absent = ("peer" if name.startswith("stock") else "ours"), slow_ray if "ray" in command else None
        params = {"jobs": at_once, "trials": count, "epochs": epochs, "data": source}
        return Case(name, role, search, count, params, once=scope.quick or slow, skipped=absent)

    def ours(backend: str, at_once: int, count: int = trials, *options: str) -> Case:
        name = f"ours: {backend}, {at_once} job{'s' * (at_once > 1)}{', not fused' if options else ''}"
        name += f", {count} trials" if count == LONG else ""
        slow = bool(options) and count == LONG  # the minutes go to repeats of the others
        return case(name, [*our_command(path, fold, backend), *options], at_once, count, slow=slow)

    cases = [
        case(f"stock Ray Tune, Lightning, {jobs} at a time", stock_command("ray", arrays), jobs, slow=True),
        case("stock Optuna, Lightning, 1 at a time", stock_command("optuna", arrays), 1, slow=True),
        ours("ray", jobs),
        ours("optuna", 1),
    ]
    if not scope.quick:
        for count, options in ((trials, ()), (trials, ("--no-fused",)), (LONG, ()), (LONG, ("--no-fused",))):
            cases.append(ours("optuna", jobs, count, *options))
        cases.append(ours("random", jobs))
    present = [case for case in cases if not case.skipped]
    measure(present, Plan(minimum=3, maximum=3, seconds=scope.pick(1, 240), limit=scope.pick(2, 480), warmup=0))
    for each in cases:
        if each.skipped:
            yield Record(STAGE, each.name, each.role, "s/trial", skipped=each.skipped)
        else:
            yield from _records(each, seen[each.name])


def _records(case: Case, seen: list[Seen]) -> Iterator[Record]:
    """Seconds and overhead per trial, seconds to the best value, where the time went; for ours, seconds of the whole command."""
    middle = sorted(seen, key=lambda one: one.seconds)[len(seen) // 2]
    parts = {
        "training steps and validation": middle.busy,
        "overhead: processes, imports, data, scheduling": middle.seconds - middle.busy,
    }
    trials = case.params["trials"]
    about = {**case.params, "epochs_run": [len(one.values) for one in seen]}

    def record(name: str, unit: str, values: list[float], group: str, **more: Any) -> Record:
        return Record(STAGE, f"{case.name}{name}", case.role, unit, values, {**about, "group": group, **more})

    seconds = [one.seconds / trials for one in seen]
    yield record("", "s/trial", seconds, "Seconds per trial, start-up included", parts=parts, whole="A search")
    yield record(": overhead", "s/trial", [(one.seconds - one.busy) / trials for one in seen], "Overhead per trial")
    best = [max(value for _, value in one.values) for one in seen]
    rates = [60 * trials / (one.seconds - min(at for at, _ in one.values)) for one in seen]
    yield record(": trials a minute", "trials/min", rates, "Trials a minute from the first value to the last")
    to_best = [min(at for at, value in one.values if value == top) for one, top in zip(seen, best, strict=True)]
    yield record(": to its best value", "s", to_best, "Seconds to the best value", best=best)
    if case.role == "ours":
        yield record(": whole command", "s", [one.process for one in seen], "From the command line to result.json and figures")


def our_command(path: Path, fold: int | None, backend: str) -> list[str]:
    """The command line of our search, without the options that `watch` adds; it trains on slices, as the peers do."""
    command = [*process.CLI, "search", str(path), "--model", "mlp", "--backend", backend, "--train-view", "slice"]
    return command if fold is None else [*command, "--val-fold", str(fold)]


def stock_command(kind: str, arrays: Path) -> list[str]:
    """The command line of a peer's search."""
    return [sys.executable, "-m", "shardwave.bench.peers.search", kind, str(arrays)]


def watch(command: Sequence[str], out: Path, **numbers: int) -> Seen:
    """Run a search; ours and the peers' take the same options (`numbers` by name) and write trials.jsonl into `out`."""
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    watched = process.watch([*command, "--out", str(out), *options])
    rows = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    points = [(row["start"] + at, value) for row in rows for at, value in zip(row["times"], row["values"], strict=True)]
    busy = sum(row["spent"].get(kind, 0.0) for row in rows for kind in ("step", "validation"))
    return Seen([(at - watched.began, value) for at, value in points], busy / numbers["jobs"], watched.seconds)


def _set(scope: Scope) -> tuple[Path, int | None, str]:
    """A shard set with features, the fold to validate on, and what it is: ESC-10 where it is at hand, or the bench's clips."""
    from shardwave.bench.stages.training import labelled_set
    from shardwave.preprocess.config import SpectrogramConfig
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions

    if scope.quick or not (ESC10 / "labels.csv").exists():
        return labelled_set(scope, 128, scope.pick(8, 60)), None, scope.audio_source
    path = scope.room("esc10") / "set"
    if not (path / "manifest.json").exists():
        config = SpectrogramConfig(image_size=64, features=True)
        build(ESC10, path, config, BuildOptions(labels=ESC10 / "labels.csv", engine="numba", device="cpu", workers=scope.workers))
    return path, 1, "ESC-10, fold 1 validates"


def _arrays(path: Path, fold: int | None, out: Path) -> Path:
    """The same features as the peers' arrays: standardised slices to train on, whole clips to validate on."""
    from shardwave.models.data.splits import resolve
    from shardwave.shards.read.open_set import open_set

    shard_set = open_set(path)
    roles = resolve(shard_set.splits, fold, None)
    train, val = shard_set.view(roles.train, "slice"), shard_set.view(roles.val, "full")
    values = {
        name: view.gather(np.arange(len(view)), ("features.npy",))["features.npy"]
        for name, view in (("train", train), ("val", val))
    }
    mean, std = values["train"].mean(0), values["train"].std(0)
    scaled = {f"{name}_x": ((rows - mean) / np.where(std > 0, std, 1)).astype(np.float32) for name, rows in values.items()}
    np.savez(out, **scaled, train_y=train.cls, val_y=val.cls, classes=len(shard_set.classes))
    return out
