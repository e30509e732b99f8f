"""Installed from a wheel, away from the checkout, it is the same program."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shardwave.shards.sources import synthetic

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("preprocess", "shards", "models", "search", "bench")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.mark.slow
def test_the_wheel_holds_all_that_runs(tmp_path):
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    source = tmp_path / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "cli_frame.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ours = [path.relative_to(source) for pattern in ("*.py", "*.css", "bench/curves/*") for path in source.rglob(pattern)]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", source, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("shardwave-*.whl")
    run(*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel, cwd=tmp_path)
    missing = [path for path in ours if not (tmp_path / "site" / path).exists()]
    assert not missing
    synthetic.make(tmp_path / "audio", artists=2, clips=1, seconds=2.0)
    shardwave = tmp_path / "site" / "bin" / "shardwave"
    arguments = ("shard", "audio", "--labels", "audio/labels.csv", "--out", "set", "--image-size", "16", "--json")
    built = run(sys.executable, shardwave, *arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert json.loads(built.stdout.splitlines()[-1])["clips"] == 2 * len(synthetic.GENRES)
