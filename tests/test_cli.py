"""The command line as a user meets it: help, one line per error, exit statuses, configuration file, other folders."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent


def cli(*arguments: str | Path, cwd: Path | None = None, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd or root, capture_output=True, text=True, timeout=300)


def audio_folder(folder: Path, classes: int = 2, clips: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class {label}").mkdir(parents=True)
        for clip in range(clips):
            soundfile.write(folder / f"class {label}" / f"clip {clip}.wav", rng.normal(0, 0.1, 22_050), 22_050)
    return folder


def refused(run: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """The run ended with `status` and one line on standard error that holds `words`."""
    assert run.returncode == status, run.stderr
    lines = [line for line in run.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert "Traceback" not in run.stdout + run.stderr


def test_help_imports_nothing_heavy():
    """What keeps `--help` quick; its seconds are measured by the benchmarks."""
    heavy = {"torch", "numba", "lightning", "ray", "optuna", "pandas", "matplotlib"}
    code = f"import sys, cli; sys.exit(str({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stderr.strip() == "set()"


COMMANDS = ["shard", "verify", "inspect", "train", "evaluate", "predict", "search", "fetch", "report", "demo"]


@pytest.mark.parametrize(
    "command", [[name] for name in COMMANDS] + [["bench", name] for name in ("throughput", "search", "compare", "accuracy")]
)
def test_every_command_has_help_with_examples_and_defaults(command):
    run = cli(*command, "--help")
    assert run.returncode == 0 and "Examples:" in run.stdout and "--json" in run.stdout


def test_every_command_of_the_help_is_listed():
    listed = cli("--help").stdout
    assert all(f"  {name} " in listed for name in [*COMMANDS, "bench"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], ["No such command", "nope"]),
        (["shard", "x", "--out", "y", "--bogus"], ["--bogus", "--help"]),
        (["shard", "x", "--out", "y", "--engine", "fast"], ["--engine", "fast", "torch", "dali", "reference"]),
        (["shard", "--out", "y"], ["--table", "--help"]),
        (["shard", "missing-folder", "--out", "y"], ["missing-folder"]),
        (["train", "x", "--model", "resnet", "--out", "y"], ["--model", "resnet", "cnn-plus"]),
        (["search", "x", "--model", "mlp", "--backend", "hyperopt", "--out", "y"], ["--backend", "hyperopt", "optuna"]),
        (["train", "missing-set", "--model", "cnn", "--out", "y"], ["missing-set"]),
        (["fetch", "mp3com", "--out", "y"], ["mp3com", "gtzan"]),
    ],
)
def test_wrong_usage_is_one_line_with_status_2(arguments, words, tmp_path):
    refused(cli(*arguments, cwd=tmp_path), 2, *words)
    assert not list(tmp_path.iterdir())


def test_bad_inputs_are_one_line_and_leave_nothing(tmp_path):
    audio = audio_folder(tmp_path / "audio")
    (tmp_path / "empty").mkdir()
    refused(cli("shard", tmp_path / "empty", "--out", tmp_path / "set"), 2, "audio")
    one_class = audio_folder(tmp_path / "one", classes=1)
    refused(cli("shard", one_class, "--out", tmp_path / "set"), 2, "class")
    for text, words in [
        ("file,genre\na.wav,rock\n", ["path", "label"]),
        ("path,label\nnot there.wav,rock\n", ["not there.wav"]),
        ("path,label\nclass 0/clip 0.wav,rock\nclass 0/clip 0.wav,jazz\n", ["class 0/clip 0.wav"]),
    ]:
        (tmp_path / "labels.csv").write_text(text)
        refused(cli("shard", audio, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "set"), 2, *words)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.docx").write_text("mine")
    refused(cli("shard", audio, "--out", other), 2, "thesis.docx")
    assert (other / "thesis.docx").read_text() == "mine"
    assert not (tmp_path / "set").exists()


def test_json_is_the_last_line_and_one_object(tmp_path):
    audio = audio_folder(tmp_path / "audio")
    run = cli("shard", audio, "--out", tmp_path / "set", "--image-size", 16, "--slices", 2, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1])["clips"] == 8
    run = cli("verify", tmp_path / "nowhere", "--json")
    assert run.returncode == 2 and json.loads(run.stdout.splitlines()[-1])["exit_status"] == 2


def test_configuration_file_and_the_command_line_over_it(tmp_path):
    (tmp_path / "shardwave.toml").write_text("[shard]\nimage-size = 64\nslices = 3\n[bench.throughput]\nquick = true\n")
    run = cli("shard", "x", "--out", "y", "--slices", "5", "--show-config", cwd=tmp_path)
    options = json.loads(run.stdout)["options"]
    assert options["image_size"] == 64 and options["slices"] == 5
    (tmp_path / "shardwave.toml").write_text("[shard]\nimage-sizes = 64\n")
    refused(cli("shard", "x", "--out", "y", cwd=tmp_path), 2, "image-sizes", "shard --help")
    (tmp_path / "shardwave.toml").write_text("[shrad]\n")
    refused(cli("shard", "x", "--out", "y", cwd=tmp_path), 2, "shrad")


def test_runs_from_a_checkout_whose_path_holds_spaces(tmp_path):
    copy = tmp_path / "a copy of it"
    for name in ("preprocess", "shards", "models", "search", "bench"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "cli_frame.py"):
        shutil.copy(ROOT / name, copy)
    audio = audio_folder(tmp_path / "my audio")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(copy / "cli.py"), "shard", str(audio), "--out", "a set", "--image-size", "16"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "a set" / "manifest.json").read_text())["clips"] == 8
