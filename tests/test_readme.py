"""The README's commands, run as they stand there, on a small set and with little work each."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shardwave.shards.sources import synthetic

ROOT = Path(__file__).resolve().parent.parent
LESS = {
    "train": ["--epochs", "1"],
    "search": ["--epochs", "2", "--trials", "2"],
    "bench": ["--quick", "--stage", "decode"],
}


def readme_commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- commands run by .*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block, "README.md has no block of commands"
    return [shlex.split(line) for line in block.group(1).splitlines()]


@pytest.mark.slow
def test_readme_commands(tmp_path):
    labels = synthetic.make(tmp_path / "DATA", artists=3, clips=1, seconds=4.0)
    rows = list(csv.DictReader(labels.open()))
    with labels.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "group", "fold"])
        writer.writeheader()
        writer.writerows({**row, "fold": 1 + int(row["group"][-2:])} for row in rows)
    commands = readme_commands()
    assert [command[2] for command in commands] == ["shard", "train", "search", "search", "bench", "report"]
    for command in commands:
        assert command[:2] == ["python", "cli.py"]
        run = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *command[2:], *LESS.get(command[2], [])],
            cwd=tmp_path, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    for name in ("cnn", "mlp-ray", "mlp-optuna"):
        result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        assert result["state"] == "COMPLETE" and result["scores"] if name == "cnn" else result["best"]
    assert (tmp_path / "runs/bench/records.jsonl").stat().st_size > 0
    assert (
        "<svg" in (tmp_path / "report.html").read_text() or "<img" in (tmp_path / "report.html").read_text()
    )


def test_make_help_lists_every_target():
    run = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"setup", "demo", "test", "lint", "bench"} <= set(targets)
    assert all(f"make {target} " in run.stdout for target in targets)
