"""What commands print: no passwords, and no error whatever the output's encoding is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
STORAGE = "postgresql://me:s3c@ret@host/db?sslpassword=s3cret"


def cli(*arguments: str | Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "100"},
    )


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("encodings"), np.random.default_rng(0)
    for label in ("jazz", "žluťoučký"):
        (folder / "in" / label).mkdir(parents=True)
        for clip in range(3):
            soundfile.write(folder / "in" / label / f"{clip}.wav", rng.normal(0, 0.1, 22_050), 22_050)
    run = cli(
        "shard",
        folder / "in",
        "--out",
        folder / "set",
        "--image-size",
        "32",
        "--slices",
        "0",
        "--workers",
        "1",
    )
    assert run.returncode == 0, run.stderr
    return folder / "set"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp1252:surrogateescape", "latin-1", "utf-16"])
def test_inspect_under_any_output_encoding(shard_set: Path, encoding: str) -> None:
    run = cli("inspect", shard_set, encoding=encoding)
    assert run.returncode == 0, run.stderr
    name = (
        "utf-8" if encoding == "ascii" else encoding.partition(":")[0]
    )  # click takes ASCII for a mistake, and prints UTF-8
    text = run.stdout.decode(name)
    assert "jazz" in text
    assert "-----" in text or "─────" in text
    assert "lu?ou" in text or "luťou" in text
    found = json.loads(
        cli("inspect", shard_set, "--json", encoding=encoding).stdout.decode(name).splitlines()[-1]
    )
    assert found["classes"] == ["jazz", "žluťoučký"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_error_under_any_output_encoding(tmp_path: Path, encoding: str) -> None:
    run = cli("inspect", tmp_path / "nič ─", "--json", encoding=encoding)
    assert run.returncode == 2 and run.stderr.startswith(b"error: ") and b"Traceback" not in run.stderr
    assert json.loads(run.stdout)["exit_status"] == 2


SEARCH = (
    "search",
    "sets/none",
    "--model",
    "mlp",
    "--backend",
    "optuna",
    "--out",
    "runs/none",
    "--storage",
    STORAGE,
)
FETCH = (
    "fetch",
    "esc10",
    "--out",
    "none",
    "--from",
    "none",
    "--url",
    "https://me:s3cret@host/x?X-Amz-Signature=s3cret",
)
SET = ("train", "s3://key:s3cret@bucket/set?sig=s3cret", "--model", "mlp", "--out", "runs/none")


@pytest.mark.parametrize(
    "command", [SEARCH, FETCH, SET, ("shard", "https://me:s3cret@host/audio", "--out", "sets/none")]
)
def test_show_config_masks_passwords(command: tuple[str, ...]) -> None:
    for extra in ([], ["--json"]):
        run = cli(*command, "--show-config", *extra)
        assert run.returncode == 0 and b"***" in run.stdout
        assert b"s3c" not in run.stdout + run.stderr and b"ret@" not in run.stdout + run.stderr


@pytest.mark.parametrize("command", [SEARCH, FETCH, ("inspect", "s3://key:s3cret@bucket/set")])
def test_verbose_lines_and_errors_mask_passwords(command: tuple[str, ...], tmp_path: Path) -> None:
    """The last one's store repeats the bucket's name, password and all, in a message of its own."""
    run = cli(*command, "--verbose", "--debug", "--json")
    assert run.returncode in (1, 2) and run.stderr.count(b"***") >= 1 and b"Traceback" in run.stderr
    assert b"s3c" not in run.stdout + run.stderr and b"ret@" not in run.stdout + run.stderr
