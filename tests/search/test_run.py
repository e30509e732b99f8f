"""`search` from a shard set to its run folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shardwave.bench.report.page import rendered
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.evaluation.card import write_card
from shardwave.models.evaluation.clip_csv import read_held_out
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.runs import checkpoint
from shardwave.search.compare import compare
from shardwave.search.config import SearchConfig
from shardwave.search.run import search
from shardwave.search.trial_log import read_trials

CONFIG = SearchConfig(
    "mlp", "random", train_view="slice", trials=6, epochs=3, jobs=1, val_fold=1, device="cpu"
)
FIGURES = {"progress.png", "parameters.png", "importance.png", "cost.png", "curves.png", "confusion.png"}


def config(**changes: Any) -> SearchConfig:
    return dataclasses.replace(CONFIG, **changes)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(
        "hidden_size: {grid: [4, 8]}\nbatch_size: {grid: [8, 16]}\nlearning_rate: "
        "{log_uniform: [3e-3, 1e-1]}\n"
    )
    return path


def test_the_best_trial_has_predictions_of_held_out_clips(feature_set: Path, tmp_path: Path) -> None:
    """From them the card computes intervals, and the report explains errors."""
    result = search(feature_set, config(test_fold=2, trials=2), tmp_path / "run")
    rows, classes = read_held_out(tmp_path / "run")
    counts = result["clips"]
    assert {split: sum(row.split == split for row in rows) for split in ("fold1", "fold2")} == {
        split: counts[split] for split in ("fold1", "fold2")
    }
    for split, part in (("fold1", "val"), ("fold2", "test")):
        right = [row.best(classes) == row.label for row in rows if row.split == split]
        assert sum(right) / len(right) == pytest.approx(result["scores"][f"{part}_slice_mean_accuracy"])
    write_card(tmp_path / "run")
    card = (tmp_path / "run/card.md").read_text()
    tested = f"{result['scores']['test_slice_mean_accuracy']:.3f}"
    assert f"| fold2 | {counts['fold2']} | {counts['fold2']} | {tested} (" in card
    markdown, _ = rendered([tmp_path / "run"])
    assert f"on {counts['fold2']} test clips of {counts['fold2']} groups, 95 % interval" in markdown


@pytest.mark.parametrize(
    ("backend", "fused"),
    [
        ("random", False),
        ("random", True),
        ("optuna", None),
        pytest.param("ray", None, marks=pytest.mark.slow),
    ],
)
def test_a_run_folder(
    feature_set: Path, space: Path, backend: str, fused: bool | None, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = search(feature_set, config(backend=backend, space=space, fused=fused), out)
    stored = json.loads((out / "result.json").read_text())
    assert stored == json.loads(json.dumps(result))
    names = (
        "format command state error model params seed fingerprint set_id classes folds selected_by "
        "best_epoch scores history"
    )
    names += " seconds environment backend sampler scheduler trials best epochs"
    assert set(names.split()) <= set(result)
    assert result["command"] == "search" and result["state"] == "COMPLETE" and result["trials"] == 6
    trials = read_trials(out)
    best = max(trials, key=lambda trial: (trial.value, -trial.trial))
    assert result["best"] == {
        "trial": best.trial,
        "params": best.params,
        "value": best.value,
        "epoch": best.best_epoch,
    }
    assert result["best"]["value"] > 0.6 and result["params"] == best.params
    assert result["epochs"]["run"] == sum(trial.epochs for trial in trials) == 18 - result["epochs"]["saved"]
    assert set(result["seconds"]) >= {"total", "step", "validation", "data_wait", "overhead"}
    assert result["seconds"]["overhead"] < result["seconds"]["total"]
    assert result["history"][result["best_epoch"] - 1]["val_slice_mean_accuracy"] == best.value
    assert (
        result["scores"]["val_slice_mean_accuracy"] == best.value and 0 < result["scores"]["val_full_f1"] <= 1
    )
    assert {path.name for path in out.iterdir()} >= FIGURES
    trained = checkpoint.load(out / checkpoint.NAME)
    assert trained.epoch == result["best_epoch"] and trained.config.hidden_size == best.params["hidden_size"]
    scored = evaluate(out, feature_set, ("fold1",), device="cpu")
    assert scored["scores"]["fold1_slice_mean_accuracy"] == best.value
    assert not (out / "kept").exists()
    assert not [path.name for path in out.iterdir() if path.name.endswith(".tmp")]
    for trial in trials:
        assert trial.info["parameters"] > 0 and trial.params["hidden_size"] in (4, 8)


def test_resume_adds_trials_and_refuses_another_search(
    feature_set: Path, space: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    search(feature_set, config(space=space, trials=3), out)
    first = (out / "trials.jsonl").read_text()
    with pytest.raises(UsageError, match="already holds a run .COMPLETE.: use --resume"):
        search(feature_set, config(space=space, trials=3), out)
    again = search(feature_set, config(space=space, trials=3), out, resume=True)
    assert again["trials"] == 3 and (out / "trials.jsonl").read_text() == first
    more = search(feature_set, config(space=space, trials=5), out, resume=True)
    assert more["trials"] == 5 and (out / "trials.jsonl").read_text().startswith(first)
    assert more["seconds"]["total"] > again["seconds"]["total"]
    checkpoint.load(
        out / checkpoint.NAME
    )  # of the best of all five, trained again where it was of the first three
    with pytest.raises(UsageError, match="the search was started with epochs 3, not 4"):
        search(feature_set, config(space=space, epochs=4), out, resume=True)
    with pytest.raises(UsageError, match="the search was started with another space"):
        search(feature_set, config(trials=6), out, resume=True)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sets of features in train, val and test: the second with four labels corrected."""
    from shardwave.shards.build.builder import BuildOptions, build_table

    folder = tmp_path_factory.mktemp("tables")
    for name in ("one", "corrected"):
        rows = ["path,x,y,label,split"]
        for i in range(30):
            label = i % 2 if name == "one" or i not in (2, 3, 8, 9) else 1 - i % 2
            rows.append(
                f"{i}.wav,{i % 2 + i / 90},{i * i % 7},{'ab'[label]},"
                f"{('train', 'train', 'val', 'test', 'train')[i % 5]}"
            )
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        build_table(folder / f"{name}.csv", folder / name, options=BuildOptions())
    return {name: folder / name for name in ("one", "corrected")}


def test_the_test_split_is_scored_once_at_the_end(
    feature_set: Path, space: Path, tables: dict[str, Path], tmp_path: Path
) -> None:
    result = search(feature_set, config(space=space, trials=2, val_fold=1, test_fold=3), tmp_path / "folds")
    scored = evaluate(tmp_path / "folds", feature_set, device="cpu")
    for score in ("full_accuracy", "slice_mean_f1"):
        assert result["scores"][f"test_{score}"] == scored["scores"][f"fold3_{score}"]
        assert result["scores"][f"val_{score}"] == scored["scores"][f"fold1_{score}"]
    assert (
        sum(map(sum, result["confusion"]["test_slice_mean"])) == 12
        and "val_slice_mean" in result["confusion"]
    )
    kinds = {name: about["kind"] for name, about in scored["splits"].items()}
    assert kinds == {"fold1": "validation", "fold2": "trained", "fold3": "test"}
    result = search(tables["one"], config(trials=1, val_fold=None, train_view="auto"), tmp_path / "split")
    assert (
        sum(map(sum, result["confusion"]["test_full"])) == 6
        and 0 <= result["scores"]["test_full_accuracy"] <= 1
    )
    assert json.loads((tmp_path / "split" / "result.json").read_text())["scores"] == result["scores"]


def test_a_search_resumes_only_on_its_own_set(tables: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tables["one"], tmp_path / "set")
    search(tmp_path / "set", config(trials=1, val_fold=None, train_view="auto"), tmp_path / "run")
    shutil.move(tmp_path / "set", tmp_path / "moved")  # the same set, elsewhere
    assert (
        search(
            tmp_path / "moved",
            config(trials=2, val_fold=None, train_view="auto"),
            tmp_path / "run",
            resume=True,
        )["trials"]
        == 2
    )
    shutil.copytree(tables["corrected"], tmp_path / "set")
    with pytest.raises(
        UsageError, match="on another set .*: 4 of 30 clips have other labels; use the earlier set"
    ):
        search(
            tmp_path / "set",
            config(trials=3, val_fold=None, train_view="auto"),
            tmp_path / "run",
            resume=True,
        )


def test_a_study_refuses_another_set(tables: dict[str, Path], tmp_path: Path) -> None:
    shared = config(
        backend="optuna",
        trials=1,
        val_fold=None,
        train_view="auto",
        storage=f"sqlite:///{tmp_path}/study.db",
        study="one",
    )
    search(tables["one"], shared, tmp_path / "first")
    shutil.copytree(tables["one"], tmp_path / "moved")
    assert (
        search(tmp_path / "moved", dataclasses.replace(shared, trials=2), tmp_path / "second")["trials"] == 2
    )
    with pytest.raises(
        UsageError, match=r"study one is of another set: set id \w{16} \(there\) and \w{16} \(here\); use its"
    ):
        search(tables["corrected"], dataclasses.replace(shared, trials=3), tmp_path / "third")


def test_all_trials_failing(feature_set: Path, tmp_path: Path) -> None:
    bad = tmp_path / "space.yaml"
    bad.write_text("learning_rate: 1e30\n")
    with pytest.raises(
        ShardwaveError, match="all 2 trials failed; the first: ShardwaveError: the training loss became"
    ):
        search(feature_set, config(space=bad, trials=2), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["state"] == "FAILED" and "all 2 trials failed" in result["error"] and result["best"] is None


SCRIPT = """
import sys, dataclasses
from pathlib import Path
from shardwave.search.run import search
from shardwave.search.config import SearchConfig
if __name__ == "__main__":
    try:
        config = SearchConfig("mlp", "optuna", trials=400, epochs=20, jobs=2, val_fold=1, device="cpu")
        search(Path(sys.argv[1]), config, Path(sys.argv[2]))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_valid_result(
    feature_set: Path, tmp_path: Path, marked: dict[str, str], how: signal.Signals
) -> None:
    out, script = tmp_path / "run", tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**marked, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(feature_set), str(out)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    trials = out / "trials.jsonl"
    until = time.monotonic() + 90
    while not (trials.exists() and trials.read_text().count("\n") >= 5):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    with pytest.raises(ShardwaveError, match="another process trains or searches in"):
        search(
            feature_set,
            SearchConfig("mlp", "optuna", trials=400, epochs=20, jobs=2, val_fold=1, device="cpu"),
            out,
            resume=True,
        )
    os.kill(process.pid, how)
    printed, _ = process.communicate(timeout=60)
    assert printed == "interrupted\n" and process.returncode == 0
    result = json.loads((out / "result.json").read_text())
    assert result["state"] == "INTERRUPTED" and 5 <= result["trials"] == len(read_trials(out)) < 400
    assert result["best"]["value"] == max(
        trial.value for trial in read_trials(out) if trial.state != "FAILED"
    )
    if (out / "kept" / f"trial-{result['best']['trial']}.ckpt").exists():
        checkpoint.load(out / checkpoint.NAME)


def test_chosen_algorithms_are_recorded_and_kept_when_a_search_is_resumed(
    feature_set: Path, space: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"backend": "optuna", "space": space, "sampler": "auto", "scheduler": "auto"}
    with caplog.at_level("INFO"):
        first = search(feature_set, config(trials=3, **settings), tmp_path / "run")
    # three trials are too few for a model or for comparisons
    assert (first["sampler"], first["scheduler"]) == ("random", "none")
    assert first["choice"]["sampler"] == "random" and "3 trials are too few" in first["choice"]["reason"]
    assert f"auto: {first['choice']['reason']}" in caplog.text
    more = search(feature_set, config(trials=12, **settings), tmp_path / "run", resume=True)
    assert more["trials"] == 12 and more["choice"] == first["choice"]
    assert more["sampler"] == "random"


def test_comparison_of_searches(feature_set: Path, space: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    search(feature_set, config(space=space, trials=3), folders[0])
    shutil.copytree(*folders)
    rows = compare(folders)
    assert [row["run"] for row in rows] == ["one", "two"]
    for row in rows:
        assert len(row["steps"]) == row["epochs"]["run"] == 9 and row["steps"][-1][2] == row["best"]["value"]
        assert 0 < row["seconds_to_best"] <= row["steps"][-1][0] < row["seconds"]
        assert (
            row["seconds_per_trial"] == pytest.approx(row["seconds"] / 3)
            and row["overhead_per_trial"] < row["seconds_per_trial"]
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "hyperopt"}, "backend must be one of ray, optuna, syne-tune, random, got hyperopt"),
        (
            {"scheduler": "asha"},
            "scheduler of backend random must be one of none, median, got asha; --backend ray or optuna "
            "or syne-tune supports it",
        ),
        ({"sampler": "tpe"}, "sampler of backend random must be one of random, grid, got tpe"),
        ({"trials": 0}, "trials must be 1 or more, got 0"),
        ({"jobs": 0}, "jobs must be 1 or more, got 0"),
        ({"grace_period": 4}, r"grace_period must be between 1 and epochs \(3\), got 4"),
        ({"reduction_factor": 1}, "reduction_factor must be 2 or more, got 1"),
        ({"model": "rnn"}, "model must be one of"),
        ({"val_fold": 9}, "--val-fold must be one of the set's folds 1, 2, 3, got 9"),
        ({"storage": "sqlite:///x.db"}, "backend random does not take --storage"),
        ({"model": "cnn", "fused": True}, "--fused does not support model cnn with precision"),
        ({"fused": True, "device": "cuda"}, "--fused trains on the CPU: leave out --fused or --device cuda"),
        ({"device": "cuda"}, "device cuda: PyTorch finds no CUDA device"),
    ],
)
def test_wrong_usage(feature_set: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "device" in changes:
        import torch

        if torch.cuda.is_available():
            return
    with pytest.raises(UsageError, match=message):
        search(feature_set, config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_defaults() -> None:
    fused = config(device="auto")
    assert fused.is_fused() and fused.training().device == "cpu" and fused.budget().gpus_per_trial == 0
    assert not config(device="cuda").is_fused() and not config(precision="bf16-mixed").is_fused()
    assert config(device="auto", precision="bf16-mixed").training().device == "auto"
    assert (
        not config(fused=False).is_fused()
        and not config(model="cnn").is_fused()
        and config(model="vgg16", fused=True).is_fused()
    )
    resolved = config(backend="optuna", jobs=None, trials=50).budget()
    assert (resolved.scheduler, resolved.sampler, resolved.jobs) == (
        "asha",
        "tpe",
        len(os.sched_getaffinity(0)),
    )
