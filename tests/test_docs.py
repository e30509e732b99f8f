"""Documents: the commands of the tutorial run, the reference is current, links refer to existing files."""

import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from shardwave import cli, cli_frame
from shardwave.shards.sources import synthetic
from shardwave.shards.sources.known.gtzan import GENRES

ROOT = Path(__file__).resolve().parent.parent


def gtzan_like(folder: Path, clips: int = 6) -> Path:
    """Short synthetic clips with the file names of GTZAN, with the broken file, and an unlabelled folder."""
    synthetic.make(folder / "made", artists=clips, clips=1, seconds=3.0)
    for number, genre in enumerate(GENRES):
        made = sorted((folder / "made" / list(synthetic.GENRES)[number % len(synthetic.GENRES)]).iterdir())
        target = folder / "downloads" / "gtzan" / "genres_original" / genre
        target.mkdir(parents=True)
        for i, file in enumerate(made):
            shutil.copy(file, target / f"{genre}.{i:05d}.wav")
    (folder / "downloads/gtzan/genres_original/jazz/jazz.00054.wav").write_bytes(b"RIFF")
    (folder / "kaggle" / "test").mkdir(parents=True)
    for i in range(3):
        shutil.copy(
            folder / f"made/house/house.{i:02d}.0.wav", folder / "kaggle" / "test" / f"unknown {i}.wav"
        )
    return folder


def tutorial_commands() -> list[list[str]]:
    text = (ROOT / "docs/tutorial.md").read_text()
    blocks = re.findall(r"<!-- tutorial -->\n```sh\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_tutorial(tmp_path):
    gtzan_like(tmp_path)
    commands = tutorial_commands()
    assert [command[1] for command in commands] == [
        "fetch", "shard", "verify", "inspect", "train", "train", "search", "report", "predict",
    ]  # fmt: skip
    for command in commands:
        run = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *command[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    rows = list(csv.DictReader((tmp_path / "submission.csv").open()))
    assert sorted(row["id"] for row in rows) == [f"unknown {i}.wav" for i in range(3)]
    assert {row["class"] for row in rows} <= set(GENRES)
    assert "jazz.00054" not in (tmp_path / "data/gtzan/labels.csv").read_text()


def shown_commands(page: str) -> list[list[str]]:
    """Every whole command of a page, in its blocks and between backquotes."""
    text = (ROOT / page).read_text()
    lines = re.findall(r"^    shardwave (.*)$", text, re.MULTILINE) + re.findall(r"`shardwave ([^`]*)`", text)
    return [shlex.split(line, comments=True) for line in lines if "…" not in line]


@pytest.mark.slow
def test_transfer_learning(tmp_path, pretrained):
    """The commands of the section run one after another; the head learns for few epochs."""
    for name in ("aisfx", "musicnn", "efficientnet-lite0"):
        pretrained(name)
    synthetic.make(tmp_path / "my-audio", artists=4, clips=1, seconds=3.0)
    (tmp_path / "my-audio" / "labels.csv").unlink(missing_ok=True)
    shutil.copytree(tmp_path / "my-audio" / next(iter(synthetic.GENRES)), tmp_path / "new-audio")
    text = (ROOT / "docs/how-to.md").read_text()
    section = text.partition("## Use pretrained networks")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall(r"^    shardwave (.*)$", section, re.MULTILINE)]
    assert [command[0] for command in commands].count("train") == 4
    for command in commands:
        if "--from" not in command:  # the wheel is not at hand; tests/preprocess/weights has this case
            options = ["--epochs", "2"] if command[0] == "train" else []
            shown = subprocess.run(
                [sys.executable, str(ROOT / "cli.py"), *command, *options],
                cwd=tmp_path, capture_output=True, text=True, timeout=600,
            )  # fmt: skip
            assert shown.returncode == 0, f"{command}\n{shown.stdout}\n{shown.stderr}"
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("page", ["docs/gpu.md", "docs/how-to.md", "docs/report.md", "docs/tutorial.md"])
def test_commands_and_options_of_the_pages_exist(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = shown_commands(page)
    assert len(commands) >= 2
    for command in commands:
        run = CliRunner().invoke(cli.main_group, [*command, "--show-config"], prog_name="shardwave")
        assert run.exit_code == 0, f"{command}: {run.output}"


def test_reference_is_current():
    assert (ROOT / "docs/reference.md").read_text() == cli_frame.reference(cli.main_group), "run `make docs`"


def test_links_between_documents_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"`((?:docs/)?[\w-]+\.md)`", page.read_text()):
            assert (ROOT / target).exists() or (ROOT / "docs" / target).exists(), f"{page.name}: {target}"
