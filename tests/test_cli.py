"""The command line: help, one line per error, exit statuses, configuration file, other folders."""

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


def cli(
    *arguments: str | Path, cwd: Path | None = None, root: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd or root, capture_output=True, text=True, timeout=300)


def audio_folder(folder: Path, classes: int = 2, clips: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class {label}").mkdir(parents=True)
        for clip in range(clips):
            soundfile.write(
                folder / f"class {label}" / f"clip {clip}.wav", rng.normal(0, 0.1, 22_050), 22_050
            )
    return folder


def refused(run: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """The run ended with `status` and one line on standard error that holds `words`."""
    assert run.returncode == status, run.stderr
    lines = [
        line for line in run.stderr.splitlines() if line and ": working, " not in line
    ]  # of a machine that is busy
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


COMMANDS = [
    "shard",
    "verify",
    "inspect",
    "audit",
    "train",
    "evaluate",
    "predict",
    "search",
    "fetch",
    "report",
    "demo",
]


@pytest.mark.parametrize(
    "command",
    [[name] for name in COMMANDS]
    + [["bench", name] for name in ("throughput", "search", "compare", "accuracy")],
)
def test_every_command_has_help_with_examples_and_defaults(command):
    run = cli(*command, "--help")
    assert run.returncode == 0 and "Examples:" in run.stdout and "--json" in run.stdout


def test_the_help_of_train_shows_the_defaults_of_each_model():
    lines = cli("train", "--help").stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == "Defaults of each model:")
    assert lines[start + 1].split() == ["mlp", "cnn", "vgg16", "transfer", "cnn-plus"]
    assert next(line for line in lines[start:] if "--epochs" in line).split() == [
        "--epochs",
        "60",
        "15",
        "10",
        "10",
        "100",
    ]


def test_every_command_of_the_help_is_listed():
    listed = cli("--help").stdout
    assert all(f"  {name} " in listed for name in [*COMMANDS, "bench"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], ["No such command", "nope"]),
        (["shard", "x", "--out", "y", "--bogus"], ["--bogus", "--help"]),
        (
            ["shard", "x", "--out", "y", "--engine", "fast"],
            ["--engine", "fast", "numba", "torch", "dali", "reference"],
        ),
        (["shard", "--out", "y"], ["--table", "--help"]),
        (["shard", "missing-folder", "--out", "y"], ["missing-folder"]),
        (["train", "x", "--model", "resnet", "--out", "y"], ["--model", "resnet", "cnn-plus"]),
        (
            ["search", "x", "--model", "mlp", "--backend", "hyperopt", "--out", "y"],
            ["--backend", "hyperopt", "optuna"],
        ),
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
        ("tune,mood\na.wav,rock\n", ["labels.csv", "tune, mood", "--path-column"]),
        ("path,label\nnot there.wav,rock\n", ["not there.wav"]),
        ("path,label\nclass 0/clip 0.wav,rock\nclass 0/clip 0.wav,jazz\n", ["class 0/clip 0.wav"]),
    ]:
        (tmp_path / "labels.csv").write_text(text)
        refused(
            cli("shard", audio, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "set"), 2, *words
        )
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
    (tmp_path / "shardwave.toml").write_text(
        "[shard]\nimage-size = 64\nslices = 3\n[bench.throughput]\nquick = true\n"
    )
    run = cli("shard", "x", "--out", "y", "--slices", "5", "--show-config", cwd=tmp_path)
    options = json.loads(run.stdout)["options"]
    assert options["image_size"] == 64 and options["slices"] == 5
    (tmp_path / "shardwave.toml").write_text("[shard]\nimage-sizes = 64\n")
    refused(cli("shard", "x", "--out", "y", cwd=tmp_path), 2, "image-sizes", "shard --help")
    (tmp_path / "shardwave.toml").write_text("[shrad]\n")
    refused(cli("shard", "x", "--out", "y", cwd=tmp_path), 2, "shrad")


MINIMAL = [
    ["shard", "x", "--out", "y"],
    ["verify", "x"],
    ["inspect", "x"],
    ["train", "x", "--model", "cnn", "--out", "y"],
    ["evaluate", "x", "y"],
    ["predict", "x", "y", "--out", "z"],
    ["search", "x", "--model", "mlp", "--backend", "ray", "--out", "y"],
    ["fetch", "gtzan", "--out", "y"],
    ["report", "x", "y"],
    ["demo", "--data", "x"],
    ["bench", "throughput", "--out", "y"],
    ["bench", "search", "--out", "y"],
    ["bench", "compare", "x", "y"],
    ["bench", "accuracy", "x", "--work", "y"],
]


@pytest.mark.parametrize("arguments", MINIMAL, ids=lambda arguments: " ".join(arguments[:2]))
def test_show_config_of_every_command_runs_nothing(arguments, tmp_path):
    run = cli(*arguments, "--show-config", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    shown = json.loads(run.stdout)
    assert shown["command"].split()[1] == arguments[0] and shown["options"]
    assert not list(tmp_path.iterdir())


def test_show_config_says_what_a_command_fills_in():
    options = {name: json.loads(cli(*line, "--show-config").stdout)["options"] for name, *line in [
        ("shard", *MINIMAL[0]), ("train", *MINIMAL[3], "--dropout", "0.1"), ("search", *MINIMAL[6]),
    ]}  # fmt: skip
    assert options["shard"]["min_shards"] == 8 and options["search"]["trials"] == 20
    assert options["train"]["dropout"] == 0.1 and options["train"]["learning_rate"] > 0


def shard_options(*arguments: str) -> dict:
    return json.loads(cli("shard", "x", "--out", "y", *arguments, "--show-config").stdout)["options"]


def test_presets_and_the_options_over_them(tmp_path):
    assert {name: shard_options()[name] for name in ("slices", "sample_rate", "image_size", "fit")} == {
        "slices": "auto", "sample_rate": "auto", "image_size": 512, "fit": "stretch",
    }  # fmt: skip
    preset = shard_options("--preset", "speech")
    assert (preset["image_size"], preset["slices"], preset["features"]) == (64, 0, True)
    over = shard_options(
        "--preset",
        "speech",
        "--image-size",
        "32",
        "--slices",
        "auto",
        "--no-features",
        "--sample-rate",
        "8000",
    )
    changed = {"image_size": 32, "slices": "auto", "features": False, "sample_rate": 8000}
    assert over == preset | changed


def test_what_a_preset_expands_to_is_stored(tmp_path):
    audio = audio_folder(tmp_path / "audio")
    for name, arguments in {"one": [], "two": ["--n-fft", 256, "--image-size", 32]}.items():
        run = cli("shard", audio, "--out", tmp_path / name, "--preset", "speech", *arguments)
        assert run.returncode == 0, run.stderr
    one, two = (
        json.loads((tmp_path / name / "manifest.json").read_text())["config"] for name in ("one", "two")
    )
    assert (one["n_fft"], one["hop_length"], one["sample_rate"], one["image_size"]) == (512, 128, 22_050, 64)
    assert (two["n_fft"], two["hop_length"], two["frequency_scale"], two["image_size"]) == (
        256,
        64,
        one["frequency_scale"],
        32,
    )


def test_dry_run_builds_nothing(tmp_path):
    audio = audio_folder(tmp_path / "audio")
    run = cli("shard", audio, "--out", tmp_path / "set", "--slices", 20, "--dry-run", "--json")
    assert run.returncode == 0, run.stderr
    *lines, last = run.stdout.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]
    assert lines[0].startswith("audio     8 clips, 353 kB") and lines[-1].startswith(
        "warning: slices of 0.05"
    )
    found = json.loads(last)
    assert found["images"] == {"full": 8, "slice": 160} and found["seconds"] > 0
    refused(
        cli("shard", "--table", audio, "--label-column", "x", "--out", tmp_path / "set", "--dry-run"),
        2,
        "--dry-run",
    )


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--slices", "many", ["--slices", "many"]),
        ("--sample-rate", "1.5", ["--sample-rate", "1.5"]),
        ("--preset", "bats", ["--preset", "bats", "notes"]),
        ("--slice-overlap", "1", ["slice_overlap", "1"]),
        ("--fit-seconds", "2", ["fit_seconds", "fit"]),
        ("--fit", "shrink", ["--fit", "shrink", "crop"]),
    ],
)
def test_wrong_settings_are_refused(option, value, words, tmp_path):
    refused(cli("shard", "x", "--out", "y", option, value, cwd=tmp_path), 2, *words)


def test_fetch_names_a_command_that_runs(tmp_path):
    for i in range(20):
        path = tmp_path / "recordings" / f"{i % 10}_jackson_{i}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(i).normal(0, 0.1, 4_000), 8_000)
    run = cli("fetch", "fsdd", "--from", tmp_path, "--out", tmp_path / "digits")
    command = next(line.split() for line in run.stderr.splitlines() if line.startswith("  next"))[1:]
    assert command[0] == "shardwave" and command[-2:] == ["--preset", "speech"], run.stderr
    run = cli(*command[1:], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    config = json.loads((tmp_path / "sets" / "fsdd" / "manifest.json").read_text())["config"]
    assert (config["sample_rate"], config["n_fft"], config["hop_length"], config["slices"]) == (
        8_000,
        256,
        64,
        0,
    )


def test_no_command_shows_the_help_as_it_is():
    for line in ([], ["bench"]):
        run = cli(*line)
        assert (
            run.returncode == 2
            and run.stderr.startswith("Usage: shardwave")
            and "\nCommands:\n" in run.stderr
        )


def test_quiet_verbose_and_neither(tmp_path):
    audio = audio_folder(tmp_path / "audio", clips=3)
    told = {
        option: cli(
            "shard", audio, "--out", tmp_path / f"set{option}", "--image-size", 16, *filter(None, [option])
        )
        for option in ("", "--quiet", "--verbose")
    }  # fmt: skip
    assert all(run.returncode == 0 for run in told.values())
    assert told["--quiet"].stderr == ""
    assert "building" in told[""].stderr and "shardwave.preprocess.audio.decode" not in told[""].stderr
    for words in (
        "clip 2.wav by our own 16-bit wav reader",
        "train-0000: ",
        "device auto: ",
        "engine auto: numba",
        " took ",
    ):
        assert words in told["--verbose"].stderr, words


def test_inspect_against_the_audio(tmp_path):
    audio = audio_folder(tmp_path / "audio", clips=3)
    assert cli("shard", audio, "--out", tmp_path / "set", "--image-size", 16, "--slices", 2).returncode == 0
    run = cli("inspect", tmp_path / "set", "--against", audio)
    assert run.returncode == 0 and run.stdout.startswith("identical: 6 clips"), run.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [("train x --resume", "same command again"), ("train x", "same command again with --resume")],
)
def test_a_full_disk_names_the_way_on(line, told, monkeypatch, capsys):
    import errno

    import click

    from shardwave import cli_frame

    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/last.ckpt")

    train = click.Command(
        "train",
        callback=lambda **_: full(),
        params=[click.Argument(["run"]), click.Option(["--resume"], is_flag=True)],
    )
    group = click.Group("group", commands={"train": train})
    monkeypatch.setattr(sys, "argv", ["shardwave", *line.split()])
    with pytest.raises(SystemExit, match="1"):
        cli_frame.run(group)
    error = capsys.readouterr().err.strip()
    assert error == f"error: runs/x/last.ckpt: No space left on device: free some space, then run the {told}"


def test_scores_say_what_they_were_measured_on(capsys):
    """Scores of clips that were used for training or for the selection of the epoch must be marked."""
    from shardwave import cli_frame

    kinds = {
        "train": {"kind": "trained", "clips": 6, "trained": 6},
        "val": {"kind": "validation", "clips": 4, "trained": 1},
        "test": {"kind": "test", "clips": 5, "trained": 0},
        "fold1": {"kind": "mixed", "clips": 5, "trained": 2},
        "fold2": {"kind": "unknown", "clips": 5, "trained": None},
    }
    metrics = ("accuracy", "balanced_accuracy", "recall", "f1", "macro_f1")
    scores = {f"{name}_slice_mean_{metric}": 0.5 for name in kinds for metric in metrics}
    cli_frame.show_scores(
        scores, "slice_mean", {name: cli_frame.kind_of(about) for name, about in kinds.items()}
    )
    lines = capsys.readouterr().out.splitlines()[1:]
    for line, told in zip(
        lines,
        (
            "(trained)",
            "(validation; 1 of 4 clips were trained on)",
            "(test)",
            "(2 of 5 clips were",
            "(unknown: RUN lacks",
        ),
        strict=True,
    ):
        assert told in line


def test_a_training_from_the_command_line_to_its_errors_and_predictions(tmp_path):
    audio = audio_folder(tmp_path / "audio")
    assert (
        cli(
            "shard", audio, "--out", tmp_path / "set", "--image-size", 16, "--slices", 0, "--features"
        ).returncode
        == 0
    )
    run = cli("train", tmp_path / "set", "--model", "mlp", "--epochs", 2, "--out", tmp_path / "run")
    assert run.returncode == 0 and "(while learning)" in run.stdout, run.stderr
    run = cli("evaluate", tmp_path / "run", tmp_path / "set")
    assert "(trained)" in run.stdout and "(validation)" in run.stdout and "no total: " in run.stdout, (
        run.stderr
    )
    assert (tmp_path / "run" / "errors.csv").exists() and (tmp_path / "run" / "errors-set.csv").exists()
    run = cli("predict", tmp_path / "run", tmp_path / "set", "--split", "val", "--out", tmp_path / "val.csv")
    assert run.returncode == 0 and (tmp_path / "val.csv").read_text().startswith(
        "path,split,label,class,probability\nclass "
    )


COMPLETE = {  # what a shell does after `eval` of the script, and what it then offers
    "bash": """eval "$(_SHARDWAVE_COMPLETE=bash_source shardwave)"
        COMP_WORDS=(shardwave fetch gt); COMP_CWORD=2; _shardwave_completion shardwave
        echo "${COMPREPLY[@]}" """,
    "zsh": """autoload -U compinit; compinit -u -D; eval "$(_SHARDWAVE_COMPLETE=zsh_source shardwave)"
        [ "${_comps[shardwave]}" = _shardwave_completion ] || exit 1
        COMP_WORDS="shardwave fetch gt" COMP_CWORD=2 _SHARDWAVE_COMPLETE=zsh_complete shardwave""",
    "fish": """_SHARDWAVE_COMPLETE=fish_source shardwave | source; complete -C "shardwave fetch gt" """,
}


@pytest.mark.parametrize("shell", COMPLETE)
def test_completion(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = tmp_path / "bin" / "shardwave"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "cli.py"}" "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    quick = {"bash": ["--norc"], "zsh": ["-f"], "fish": []}[shell]
    run = subprocess.run(
        [shell, *quick, "-c", COMPLETE[shell]], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0 and "gtzan" in run.stdout.split(), run.stderr


def test_runs_from_a_checkout_whose_path_holds_spaces(tmp_path):
    copy = tmp_path / "a copy of it"
    for name in ("shardwave", "common", "preprocess", "shards", "models", "search", "bench"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "cli_frame.py"):
        shutil.copy(ROOT / name, copy)
    audio = audio_folder(tmp_path / "my audio")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [
        sys.executable,
        str(copy / "cli.py"),
        "shard",
        str(audio),
        "--out",
        "a set",
        "--image-size",
        "16",
    ]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "a set" / "manifest.json").read_text())["clips"] == 8
