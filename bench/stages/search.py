"""Searches of the MLP in fresh processes with our backends, and with stock Ray Tune and Optuna."""

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
LONG = 60  # trials of a search in which the start-up is a small part
ESC10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"  # real clips with folds, if present


class WatchedSearch(NamedTuple):
    """One search in a fresh process, which starts at second 0."""

    values: list[tuple[float, float]]  # (second, value) of every epoch of every trial
    busy: float  # seconds in training steps and validation, divided by the jobs
    process: float  # seconds until the process ended

    @property
    def seconds(self) -> float:
        """Seconds until the last value of a trial, with imports and start-up, without results and figures."""
        return max(second for second, _ in self.values)


def run(scope: Scope) -> Iterator[Record]:
    """Measure searches of our backends and of the peers.

    Yields:
        Records of the seconds per trial with the start-up, the overhead per trial, the trials per minute, the
        seconds to the best value and, for ours, of the whole command.
    """
    trials, epochs, jobs = scope.pick(2, 20), scope.pick(2, 10), min(2, scope.workers)
    path, fold, source = _set(scope)
    folder = scope.subfolder("searches")
    arrays = _arrays(path, fold, folder / "features.npz")
    slow_ray = "not in the quick run: starting Ray takes too long" if scope.quick else missing("ray", "ray")
    searches: dict[str, list[WatchedSearch]] = {}

    def case(
        name: str, command: Sequence[str], at_once: int, count: int = trials, *, slow: bool = False
    ) -> Case:
        def search() -> Seconds:
            out = Path(tempfile.mkdtemp(dir=folder))
            searches[name].append(
                watch(command, out, trials=count, epochs=epochs, jobs=at_once, seed=len(searches[name]))
            )
            return Seconds(searches[name][-1].seconds)

        searches[name] = []
        role, absent = (
            ("peer" if name.startswith("stock") else "ours"),
            slow_ray if "ray" in command else None,
        )
        params = {"jobs": at_once, "trials": count, "epochs": epochs, "data": source}
        return Case(name, role, search, count, params, once=scope.quick or slow, skipped=absent)

    def ours(backend: str, at_once: int, count: int = trials, *options: str) -> Case:
        name = f"ours: {backend}, {at_once} job{'s' * (at_once > 1)}{', not fused' if options else ''}"
        name += f", {count} trials" if count == LONG else ""
        slow = bool(options) and count == LONG  # takes minutes, so it is measured once
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
    measure(
        present, Plan(minimum=3, maximum=3, seconds=scope.pick(1, 240), limit=scope.pick(2, 480), warmup=0)
    )
    for each in cases:
        if each.skipped:
            yield Record(STAGE, each.name, each.role, "s/trial", skipped=each.skipped)
        else:
            yield from _records(each, searches[each.name])


def _records(case: Case, searches: list[WatchedSearch]) -> Iterator[Record]:
    """Yield the records of the searches of one case."""
    middle = sorted(searches, key=lambda each: each.seconds)[len(searches) // 2]
    parts = {
        "training steps and validation": middle.busy,
        "overhead: processes, imports, data, scheduling": middle.seconds - middle.busy,
    }
    trials = case.params["trials"]
    params = {**case.params, "epochs_run": [len(each.values) for each in searches]}

    def record(name: str, unit: str, values: list[float], group: str, **more: Any) -> Record:
        return Record(
            STAGE, f"{case.name}{name}", case.role, unit, values, {**params, "group": group, **more}
        )

    seconds = [each.seconds / trials for each in searches]
    yield record(
        "", "s/trial", seconds, "Seconds per trial, start-up included", parts=parts, whole="A search"
    )
    yield record(
        ": overhead",
        "s/trial",
        [(each.seconds - each.busy) / trials for each in searches],
        "Overhead per trial",
    )
    best = [max(value for _, value in each.values) for each in searches]
    rates = [60 * trials / (each.seconds - min(second for second, _ in each.values)) for each in searches]
    yield record(": trials a minute", "trials/min", rates, "Trials a minute from the first value to the last")
    to_best = [
        min(second for second, value in each.values if value == top)
        for each, top in zip(searches, best, strict=True)
    ]
    yield record(": to its best value", "s", to_best, "Seconds to the best value", best=best)
    if case.role == "ours":
        yield record(
            ": whole command",
            "s",
            [each.process for each in searches],
            "From the command line to result.json and figures",
        )


def our_command(path: Path, fold: int | None, backend: str) -> list[str]:
    """Return the command of our search, without the options that `watch` adds.

    It trains on slices, as the peers do.

    Args:
        path: Shard set.
        fold: Fold to validate on; None is the split `val`.
        backend: Search backend.
    """
    command = [
        *process.CLI,
        "search",
        str(path),
        "--model",
        "mlp",
        "--backend",
        backend,
        "--train-view",
        "slice",
    ]
    return command if fold is None else [*command, "--val-fold", str(fold)]


def stock_command(kind: str, arrays: Path) -> list[str]:
    """Return the command of a peer's search.

    Args:
        kind: `ray` or `optuna`.
        arrays: File of the features.
    """
    return [sys.executable, "-m", "shardwave.bench.peers.search", kind, str(arrays)]


def watch(command: Sequence[str], out: Path, **numbers: int) -> WatchedSearch:
    """Run a search and measure it.

    Args:
        command: Command of our search or of a peer's.
        out: Folder that the search writes trials.jsonl into.
        **numbers: Further options by name.
    """
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    watched = process.watch([*command, "--out", str(out), *options])
    rows = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    points = [
        (row["start"] + time, value)
        for row in rows
        for time, value in zip(row["times"], row["values"], strict=True)
    ]
    busy = sum(row["spent"].get(kind, 0.0) for row in rows for kind in ("step", "validation"))
    return WatchedSearch(
        [(time - watched.started, value) for time, value in points], busy / numbers["jobs"], watched.seconds
    )


def _set(scope: Scope) -> tuple[Path, int | None, str]:
    """Shard set, fold to validate on and description: ESC-10 if present, else the bench's clips."""
    from shardwave.bench.stages.training import labelled_set
    from shardwave.preprocess.config import SpectrogramConfig
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions

    if scope.quick or not (ESC10 / "labels.csv").exists():
        return labelled_set(scope, 128, scope.pick(8, 60)), None, scope.audio_source
    path = scope.subfolder("esc10") / "set"
    if not (path / "manifest.json").exists():
        config = SpectrogramConfig(image_size=64, features=True)
        build(
            ESC10,
            path,
            config,
            BuildOptions(labels=ESC10 / "labels.csv", engine="numba", device="cpu", workers=scope.workers),
        )
    return path, 1, "ESC-10, fold 1 validates"


def _arrays(path: Path, fold: int | None, out: Path) -> Path:
    """Write the arrays of the peers: standardised slices for training, full views for validation."""
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
    scaled = {
        f"{name}_x": ((rows - mean) / np.where(std > 0, std, 1)).astype(np.float32)
        for name, rows in values.items()
    }
    np.savez(out, **scaled, train_y=train.cls, val_y=val.cls, classes=len(shard_set.classes))
    return out
