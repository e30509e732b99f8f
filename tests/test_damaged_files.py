"""Replaces each value of every file that a command reads.

The command fails with one line that names the file, or its result does not depend on the value.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shardwave.bench.report.page
from shardwave.bench.harness.record import Record, append
from shardwave.bench.report import compare
from shardwave.bench.search_quality import curves
from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError
from shardwave.models.networks.base import Inputs
from shardwave.models.networks.build import build_model
from shardwave.models.runs import checkpoint, result
from shardwave.models.training.config import defaults
from shardwave.search.space import Grid, Space, Uniform
from shardwave.search.trial import Trial
from shardwave.search.trial_log import TrialLog, read_trials
from shardwave.shards.build import folder, lock, plan
from shardwave.shards.build.plan import PlannedClip
from shardwave.shards.build.set_storage import finished_record
from shardwave.shards.build.shard_task import ShardTask, TaskWriter
from shardwave.shards.build.worker import identity
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import BUILD
from shardwave.shards.inspect import summary
from shardwave.shards.read.open_set import open_set
from shardwave.shards.sources import download
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import as_path
from tests.models.conftest import FEATURES, write_images
from tests.shards.conftest import CONFIG

DEEP: list[Any] = []
for _ in range(200):  # deeper than anything here, and not too deep for the tests' own json.dumps
    DEEP = [DEEP]
BAD = (None, -1, 1e300, 2**70, "x", "../../x", True, [], {}, [[]], {"x": None}, DEEP, float("nan"))
BYTES = (
    b"", b"\0" * 100, b"null", b"[]", b"3", b'"x"', b"\xff\xfe\x00", b"[" * 100_000, b'{"format":' * 100_000,
    b"{}", b"\n\n{}\n",
    bytes(random.Random(0).randbytes(1_000)),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values lie within a JSON value; of a long list the first and the last one."""
    yield path
    if path and path[-1] in ("environment", "versions"):  # only shown
        return
    if isinstance(value, dict):
        for name, each in value.items():
            yield from places(each, (*path, name))
    elif isinstance(value, list) and value:
        for number in sorted({0, len(value) - 1}):
            yield from places(value[number], (*path, number))


def mutations(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield copies of `value`, each with one value replaced or omitted, and a description of the change.

    Below the second level, only every third value of BAD is used, in turn.
    """
    for number, path in enumerate(places(value)):
        for bad in (*BAD, ...) if len(path) < 2 else (*BAD, ...)[number % 3 :: 3]:
            changed = copy.deepcopy(value)
            inner, name = changed, path[-1] if path else None
            for step in path[:-1]:
                inner = inner[step]
            if not path:
                if bad is ...:
                    continue
                changed = copy.deepcopy(bad)
            elif bad is ...:
                del inner[name]
            else:
                inner[name] = bad
            yield f"{path} = {str(bad)[:40]}", changed


def survives(path: Path, use: Callable[[], object], name: str | None = None, what: str = "") -> bool:
    """Whether `use` succeeds; where it does not, it must end in one clear line that names the file."""
    try:
        use()
    except ShardwaveError as error:
        assert (name or path.name) in str(error) or path.parent.name in str(error), (
            f"{what}: not named: {error}"
        )
        assert "\n" not in str(error)
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return True


def fuzz_bytes(path: Path, use: Callable[[], object]) -> None:
    """The whole file replaced by junk, and cut off."""
    whole = path.read_bytes()
    cuts = [whole[: len(whole) * part // 7] for part in range(7)] + [whole[:-1], whole[:-3], whole + b"}"]
    for data in (*BYTES, *cuts):
        path.write_bytes(data)
        survives(path, use, what=str(data[:40]))
    path.write_bytes(whole)


def fuzz_json(
    path: Path, use: Callable[[], object], seal: Callable[[Any], Any] = lambda value: value
) -> None:
    """Mutates each value of a JSON file; `seal` recomputes the checksums, so that the values are read."""
    whole = path.read_bytes()
    assert survives(path, use)
    refused = total = 0
    for what, changed in mutations(json.loads(whole)):
        path.write_text(json.dumps(seal(changed)))
        refused += not survives(path, use, what=what)
        total += 1
    path.write_bytes(whole)
    assert refused > total / 4 and survives(path, use)
    fuzz_bytes(path, use)


def fuzz_lines(path: Path, use: Callable[[], object]) -> None:
    """Each value of the first, second and last line of a file of JSON lines."""
    whole = path.read_bytes()
    assert survives(path, use)
    lines = whole.rstrip(b"\n").split(b"\n")
    for number in sorted({0, min(1, len(lines) - 1), len(lines) - 1}):
        for what, changed in mutations(json.loads(lines[number])):
            path.write_bytes(
                b"\n".join([*lines[:number], json.dumps(changed).encode(), *lines[number + 1 :]]) + b"\n"
            )
            survives(path, use, what=f"line {number}: {what}")
    path.write_bytes(whole)
    fuzz_bytes(path, use)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(
        tmp_path_factory.mktemp("sets") / "small", ["train", "val"], clips=2, slices=2, size=16
    )


@pytest.fixture
def shard_set(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set"))


def look(shard_set: Path) -> None:
    """What `inspect SET` and training read of a set."""
    summary.describe(summary.summary(shard_set))
    opened = open_set(shard_set)
    _ = opened.config
    for name in opened.splits:
        view = opened.view(name, "both")
        view.gather(range(len(view)), [field for field in opened.fields if field.endswith("npy")])


def test_manifest(shard_set: Path) -> None:
    from shardwave.shards.format import manifest

    def seal(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("config"), dict | None):
            value["fingerprint"] = manifest.fingerprint(value.get("config"))
        return value

    fuzz_json(shard_set / "manifest.json", lambda: look(shard_set), seal)
    fuzz_bytes(shard_set / "manifest.json", lambda: folder.examine(shard_set))


def test_index(shard_set: Path) -> None:
    path = shard_set / "train-full-0000.index"
    whole = path.read_bytes()
    magic, length, _ = struct.unpack("<8sII", whole[:16])
    header = json.loads(whole[16 : 16 + length])

    def write(data: bytes) -> None:
        body = data + whole[16 + length :]
        path.write_bytes(struct.pack("<8sII", magic, len(data), zlib.crc32(body, len(data))) + body)

    for what, changed in mutations(header):
        write(json.dumps(changed).encode().ljust(length))
        survives(path, lambda: look(shard_set), "train-full-0000", what)
    for data in BYTES:
        write(data)
        survives(path, lambda: look(shard_set), what=str(data[:40]))
    path.write_bytes(whole)
    fuzz_bytes(path, lambda: look(shard_set))


def test_json_of_samples(shard_set: Path) -> None:
    path = shard_set / "train-full-0000.tar"
    whole = path.read_bytes()
    opened = open_set(shard_set)
    view = opened.view("train")
    start = int(view._block["json"][0]) * 512
    length = len(json.dumps(view.meta(0)))
    for what, changed in mutations(dict(view.meta(0))):
        data = json.dumps(changed).encode().ljust(length)
        path.write_bytes(whole[:start] + data[:length] + whole[start + length :])
        survives(path, lambda: summary.describe(summary.summary(shard_set)), what=what)
    for data in BYTES:
        path.write_bytes(whole[:start] + data.ljust(length)[:length] + whole[start + length :])
        survives(path, lambda: summary.summary(shard_set), what=str(data))
    path.write_bytes(whole[: start - 512] + bytes(512) + whole[start:])  # its tar header
    assert not survives(path, lambda: summary.summary(shard_set))


def test_quarantine(shard_set: Path) -> None:
    path = shard_set / "quarantine.jsonl"
    path.write_text('{"path": "a.wav", "reason": "empty file"}\n{"path": "b.wav", "reason": "truncated"}\n')
    fuzz_lines(path, lambda: summary.describe(summary.summary(shard_set)))


def some_plan() -> plan.Plan:
    clips = [Clip("a/1.wav", "a"), Clip("b/2.wav", "b", 1, "g")]
    numbers = np.array([[0, 0, 0, 100, 5, 7], [1, 1, 0, 200, 6, -1]], np.int64)
    return plan.Plan({"seed": 0}, plan.PlannedClips(clips, ["train", "val"], numbers))


@pytest.mark.parametrize("name", ["plan.jsonl", "inputs.jsonl"])
def test_plan(shard_set: Path, tmp_path: Path, name: str) -> None:
    out = shard_set if name == "inputs.jsonl" else tmp_path / "unfinished"
    path = out / name if name == "inputs.jsonl" else out / BUILD / name
    path.parent.mkdir(parents=True, exist_ok=True)
    some_plan().write(path)

    def use() -> None:
        state = folder.examine(out)
        assert state.plan is not None
        assert all(
            split in ("train", "val", "test") for split, _ in state.plan.shards()
        )  # they become names of files
        plan.changes(some_plan(), state.plan, out, {})

    fuzz_lines(path, use)


def test_tasks_with_damaged_records_are_built_again(tmp_path: Path) -> None:
    (tmp_path / BUILD).mkdir()
    task = ShardTask("train", 0, [(0, PlannedClip(Clip("a.wav", "a"), 0, "train", 0, 0, 1, 1))])
    writer = TaskWriter(tmp_path, task, CONFIG)
    writer.quarantine(task.clips[0][1], "empty file", 3)
    writer.finish(identity("reference", "cpu"))
    path = tmp_path / BUILD / "train-0000.json"
    assert finished_record(tmp_path, task) is not None
    whole = json.loads(path.read_text())
    whole["shards"] = {
        "full": {
            "file": "../../x.tar",
            "samples": 1,
            "bytes": 1,
            **dict.fromkeys(("blake3", "index_blake3", "idx_blake3"), "0" * 64),
        }
    }
    path.write_text(json.dumps(whole))
    assert finished_record(tmp_path, task) is None  # a record names the files of its own shards only
    for what, changed in mutations(whole):
        path.write_text(json.dumps(changed))
        survives(path, lambda: finished_record(tmp_path, task), what=what)
    fuzz_bytes(path, lambda: finished_record(tmp_path, task))


def test_the_lock_of_a_build_at_a_url() -> None:
    folder = as_path("memory://set")
    for data in BYTES:
        any_path.write(folder / ".shardwave.lock", data)  # type: ignore[arg-type]
        with pytest.raises(ShardwaveError, match="another build is writing .*--break-lock"):
            lock.hold(folder).__enter__()


def test_downloads_begin_anew_where_their_record_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / ".x.part.json"
    path.write_text(json.dumps({"url": "http://x", "validator": "e", "total": 5}))
    record = download._read_validator(tmp_path / ".x.part")
    assert record is not None and record["total"] == 5
    for data in (
        *BYTES,
        b'{"url": 3, "validator": "e", "total": 5}',
        b'{"url": "x", "validator": "e", "total": "5"}',
    ):
        path.write_bytes(data)
        assert download._read_validator(tmp_path / ".x.part") is None


HISTORY = [
    {"epoch": n, "train_loss": 1.0, "val_loss": 1.0, "train_full_accuracy": 0.5, "val_full_accuracy": 0.5,
     "val_full_recall": 0.5, "val_full_f1": 0.5, "confusion": {"val_full": [[1, 0], [0, 1]]}} for n in (1, 2)
]  # fmt: skip
RUN = {
    "format": result.FORMAT, "command": "train", "state": "COMPLETE", "error": None, "model": "cnn",
    "params": {"dropout": 0.5},
    "seed": 0, "config": {"model": "cnn"}, "set": "sets/x", "fingerprint": "0", "classes": ["a", "b"],
    "folds": {"train": ["train"]},
    "selected_by": "full", "best_epoch": 1, "scores": {"val_full_accuracy": 0.5, "val_full_recall": None},
    "confusion": {"val_full": [[1, 0], [0, 1]]}, "history": HISTORY, "parameters": 5,
    "seconds": {"total": 2.0, "step": 1.0, "validation": 0.1, "data_wait": 0.1,
                "backbone": {"seconds": 0.1, "samples": 9, "cached": False}},
    "environment": {"cpu": "x", "cores": 2, "versions": {"torch": "2"}, "date": "2026-01-01", "commit": "0"},
}  # fmt: skip
FOLD = {
    "fold": 1, "val_fold": 2, "epochs": 3, "scores": {"test_full_accuracy": 0.5}, "parameters": 5,
    "threads": 1, "choice": {"scores": {"val_full_accuracy": 0.5}}, "seconds": {"total": 2.0},
}  # fmt: skip
SEARCH = {
    **RUN, "command": "search", "backend": "random", "sampler": "random", "scheduler": "none", "jobs": 1,
    "started": 1.0, "trials": 2, "states": {"COMPLETE": 2},
    "best": {"trial": 0, "params": {"dropout": 0.5}, "value": 0.5, "epoch": 1},
    "epochs": {"run": 2, "saved": 0}, "space": {"dropout": {"Uniform": [0, 1]}},
    "seconds": {**RUN["seconds"], "overhead": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["train", "folds", "search"])
def test_result(tmp_path: Path, kind: str) -> None:
    found = {
        "train": RUN,
        "folds": {**RUN, "per_fold": [FOLD, FOLD], "spread": {"test_full_accuracy": 0.1}},
        "search": SEARCH,
    }[kind]
    path = tmp_path / "run" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(found))
    if kind == "search":
        write_trials(path.parent)
    fuzz_json(path, lambda: shardwave.bench.report.page.rendered([path.parent]))


def test_result_of_a_run_that_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RUN))

    def use() -> None:
        with result.open_run(tmp_path, resume=True):
            pass

    fuzz_json(path, use)


def write_trials(out: Path) -> None:
    log = TrialLog(out)
    for number in range(2):
        log.add(
            Trial(
                number,
                {"dropout": 0.5},
                "COMPLETE",
                [0.4, 0.5],
                [1.0, 2.0],
                1.0,
                2.0,
                "w",
                info={"best_epoch": 1},
            )
        )


def test_trials(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "result.json").write_text(json.dumps(SEARCH))
    write_trials(out)
    fuzz_lines(out / "trials.jsonl", lambda: (read_trials(out), shardwave.bench.report.page.rendered([out])))
    (out / "started.jsonl").write_text(
        '{"trial": 5, "params": {"dropout": 0.5}, "attempt": 1, "worker": "w"}\n'
    )
    assert [trial.trial for trial in TrialLog(out).unfinished()] == [5]
    fuzz_lines(out / "started.jsonl", lambda: TrialLog(out).unfinished())


@pytest.mark.parametrize("keep", range(1, 60, 4))
def test_a_line_that_a_crash_cut_off_is_passed_over(tmp_path: Path, keep: int) -> None:
    write_trials(tmp_path)
    whole = (tmp_path / "trials.jsonl").read_bytes()
    (tmp_path / "trials.jsonl").write_bytes(whole + whole[:keep])
    assert len(TrialLog(tmp_path).trials) == 2
    TrialLog(tmp_path).add(Trial(7, {}, "FAILED"))
    assert [trial.trial for trial in TrialLog(tmp_path).trials] == [0, 1, 7]


def test_records_of_benchmarks(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    machine = environment()
    way = {"way": {"step": "decode", "work": 30.0, "when": "once"}, "parts": {"x": 1.0}, "group": "g"}
    append(path, Record("decode", "wav", "ours", "s", [1.0, 2.0], way, 0.5, environment=machine))
    scale = {"axis": "clips", "measure": "s", "points": [[1, 2], [2, 4]]}
    append(path, Record("scale", "clips", "ours", "exponent", [1.0], scale, environment=machine))
    append(path, Record("decode", "mp3", "peer", "s", [], {}, None, "no decoder", machine))

    def use() -> None:
        shardwave.bench.report.page.rendered([path])
        compare.compare(path, path)

    fuzz_lines(path, use)


def test_curves(tmp_path: Path) -> None:
    path = tmp_path / "curves.npz"
    space = Space({"hidden_size": Grid((1, 2)), "dropout": Uniform(0.0, 1.0)})
    rows: list[curves.Recorded] = [
        {
            "configuration": n, "seed": 0, "params": {"hidden_size": n, "dropout": 0.5}, "seconds": 1.0,
            "val_correct": [[1, 2]], "val_loss": [[0.5, 0.25]], "test_correct": [[2, 3]],
        }
        for n in (1, 2)
    ]  # fmt: skip
    head = {"name": "curves", "space": space.describe(), "val_clips": [10], "test_clips": 10}
    curves.write(path, head, rows)

    def use() -> None:
        table = curves.read(path)
        table.lookup(table.space.point(0, 0))

    fuzz_bytes(path, use)


def some_checkpoint(path: Path) -> Any:
    config = defaults("mlp", hidden_size=4)
    inputs = Inputs("features.npy", (FEATURES,), 2, torch.zeros(FEATURES), torch.ones(FEATURES))
    network = build_model(config, inputs)
    about = {
        "classes": ["a", "b"],
        "set_id": "0",
        "fingerprint": "0",
        "set_config": None,
        "splits": {"train": ["train"]},
        "spectrogram": dataclasses.asdict(CONFIG),
        "selected": "full",
        "epoch": 1,
    }
    checkpoint.save(path, network.state_dict(), inputs, config, about)
    return torch.load(path, weights_only=True)


def test_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.ckpt"
    content = some_checkpoint(path)
    assert survives(path, lambda: checkpoint.load(path))
    refused = 0
    for what, changed in mutations(content):
        torch.save(changed, path)
        refused += not survives(path, lambda: checkpoint.load(path), what=what)
    assert refused > 100
    for weights in ({name: value.new_zeros(3) for name, value in content["state_dict"].items()}, {}):
        torch.save({**content, "state_dict": weights}, path)
        assert not survives(path, lambda: checkpoint.load(path))
    some_checkpoint(path)
    fuzz_bytes(path, lambda: checkpoint.load(path))


def test_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    known = {"epoch": 1, "global_step": 5, "state_dict": {"w": torch.zeros(2)}, "loops": {}, "callbacks": {}}
    content = {**known, "optimizer_states": [], "lr_schedulers": [], "pytorch-lightning_version": "2"}
    torch.save(content, path)
    assert survives(path, lambda: checkpoint.check_last(path))
    for name in content:
        if name != "pytorch-lightning_version":
            for bad in (None, "x", -1.5):
                torch.save({**content, name: bad}, path)
                assert not survives(path, lambda: checkpoint.check_last(path))
    torch.save(content, path)
    fuzz_bytes(path, lambda: checkpoint.check_last(path))
