"""The package runs from a wheel, an editable install and a checkout, also beside modules of equal names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shardwave.shards.sources import synthetic

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("shardwave", "common", "preprocess", "shards", "models", "search", "bench")
FILES = ("cli.py", "cli_frame.py", "pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
FOREIGN = ("models.py", "search.py", "bench.py", "common.py", "shards.py", "preprocess.py", "cli.py")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with audio, and with modules of other people that bear our folders' names."""
    folder = tmp_path_factory.mktemp("other people's")
    synthetic.make(folder / "audio", artists=2, clips=1, seconds=2.0)
    for name in FOREIGN:
        (folder / name).write_text("raise ImportError('a module of somebody else')\n")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, without what the tools leave there."""
    source = tmp_path_factory.mktemp("checkout") / "a copy of it"
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(ROOT / name, source)
    return source


def builds(folder: Path, out: str, *command: str | Path, **environment: str) -> None:
    """Build a set and tune on it with a command: both start processes of their own."""
    arguments = (
        "audio",
        "--labels",
        "audio/labels.csv",
        "--image-size",
        "16",
        "--features",
        "--workers",
        "2",
    )
    built = run(*command, "shard", *arguments, "--out", out, "--json", cwd=folder, **environment)
    assert json.loads(built.stdout.splitlines()[-1])["clips"] == 2 * len(synthetic.GENRES)
    search = ("--model", "mlp", "--backend", "random", "--trials", "2", "--epochs", "1", "--jobs", "2")
    found = run(
        *command, "search", out, *search, "--out", f"{out}-search", "--json", cwd=folder, **environment
    )
    assert json.loads(found.stdout.splitlines()[-1])["state"] == "COMPLETE"


@pytest.mark.slow
def test_a_wheel_holds_everything_and_runs(folder: Path, source: Path, tmp_path: Path) -> None:
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", source, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("shardwave-*.whl")
    run(*PIP, "install", "--no-deps", "--target", tmp_path / "site", wheel, cwd=tmp_path)
    ours = [
        path.relative_to(source)
        for name in FOLDERS[1:]
        for path in (source / name).rglob("*")
        if path.is_file()
    ]
    data = [path for path in ours if path.suffix in (".py", ".css", ".html", ".j2") or "curves" in path.parts]
    assert not [path for path in data if not (tmp_path / "site" / "shardwave" / path).exists()]
    assert (tmp_path / "site" / "shardwave" / "py.typed").exists()
    assert {path.name for path in (tmp_path / "site").iterdir() if "-" not in path.name} == {
        "bin",
        "shardwave",
    }
    site = str(tmp_path / "site")
    builds(folder, "wheel-set", sys.executable, tmp_path / "site" / "bin" / "shardwave", PYTHONPATH=site)


@pytest.mark.slow
def test_an_editable_install_runs(folder: Path, source: Path, tmp_path: Path) -> None:
    run(
        sys.executable,
        "-m",
        "venv",
        "--system-site-packages",
        "--without-pip",
        tmp_path / "env",
        cwd=tmp_path,
    )
    python = tmp_path / "env" / "bin" / "python"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    run(
        *PIP, "--python", python, "install", "--no-deps", "--no-build-isolation", "-e", source,
        cwd=tmp_path, PYTHONPATH=packages,
    )  # fmt: skip
    (site / "dependencies.pth").write_text(
        packages + "\n"
    )  # of the running environment, behind the editable package
    where = run(python, "-c", "import shardwave; print(shardwave.__file__)", cwd=folder).stdout.strip()
    assert Path(where).resolve() == (source / "shardwave" / "__init__.py").resolve()
    builds(folder, "editable-set", tmp_path / "env" / "bin" / "shardwave")


def test_a_checkout_runs_from_another_folder(folder: Path, source: Path) -> None:
    builds(folder, "checkout-set", sys.executable, source / "cli.py")
