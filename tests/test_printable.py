"""What names and reasons may hold never reaches a terminal as a command."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shardwave.bench.report.page
from shardwave import cli
from shardwave.common.printable import one_line, printable, write_line
from shardwave.models.runs import figures
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.inspect import summary
from tests.shards.conftest import CONFIG, write_clip

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
HOSTILE = "red\x1b[31m\x9b2J\u202egnp\u2028x\nerror: forged\r\x07"
NOT_UTF8 = os.fsdecode(b"\xff\xe9")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve, 日本, 👩‍👩‍👧 \t\n", "plain, naïve, 日本, 👩‍👩‍👧 \t\n"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\rb\x7f\x85", "a\\x0db\\x7f\\x85"),
        ("a\u202eb\u2066\ufeff", "a\\u202eb\\u2066\\ufeff"),
        (NOT_UTF8, "\\xff\\xe9"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_controls_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert one_line("a\nb\tc") == "a\\nb\\tc"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_any_encoding_will_do(encoding: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write_line("─ · … naïve 日本 " + HOSTILE + NOT_UTF8, file)
    file.seek(0)
    text = file.read()
    known = {
        "utf-8": "─ · … naïve 日本",
        "cp1252": "- · … naïve ??",
        "latin-1": "- · ... naïve ??",
        "ascii": "- . ... na?ve ??",
    }
    assert text.startswith(known[encoding])
    assert not UNSAFE.search(text)


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes whose names are hostile, and a file that is none."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, label in enumerate((HOSTILE.replace("/", ""), "b" + NOT_UTF8)):
        (folder / "audio" / label).mkdir(parents=True)
        for clip in range(3):
            write_clip(folder / "x.wav", 10 * number + clip)
            os.rename(folder / "x.wav", folder / "audio" / label / f"{clip}{HOSTILE}.wav")
    (folder / "audio" / label / f"bad{HOSTILE}.wav").write_text("none")
    build(
        folder / "audio",
        folder / "set",
        CONFIG,
        BuildOptions(workers=1, min_shards=1, max_bad_fraction=1, val_fraction=0.4),
    )
    return folder / "set"


def shown(arguments: list[Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.argv", ["shardwave", *map(str, arguments)])
    with pytest.raises(SystemExit):
        cli.main()
    told = capfd.readouterr()
    text = told.out + told.err
    assert text and not UNSAFE.search(text.replace("\r", "")), repr(
        text
    )  # tqdm moves its bar by carriage returns
    assert "\nerror: forged" not in text
    return text


def test_commands_print_no_controls(
    shard_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "quarantined  1 clip" in shown(["inspect", shard_set], capfd, monkeypatch)
    shown(["inspect", shard_set, "--sheet", tmp_path / "sheet.png"], capfd, monkeypatch)
    key = json.dumps(summary.summary(shard_set))  # what --json prints is ASCII
    assert key.isascii()
    shown(["inspect", shard_set, "--json"], capfd, monkeypatch)
    shown(["inspect", shard_set, "--key", HOSTILE], capfd, monkeypatch)
    shown(["inspect", shard_set, "--against", shard_set.parent / "audio"], capfd, monkeypatch)
    shown(
        ["shard", shard_set.parent / "audio", "--out", tmp_path / f"x{HOSTILE}" / "y", "--hop-length", "0"],
        capfd,
        monkeypatch,
    )
    shown(["verify", f"none{HOSTILE}"], capfd, monkeypatch)
    shown(
        ["train", shard_set, "--model", "cnn", "--val-fold", "7", "--out", tmp_path / "run", "--debug"],
        capfd,
        monkeypatch,
    )
    shown([HOSTILE], capfd, monkeypatch)


def test_pages_and_figures_take_any_class_name(tmp_path: Path) -> None:
    from tests.test_damaged_files import RUN

    (tmp_path / "run").mkdir()
    text = json.dumps({**RUN, "classes": [HOSTILE, f"<script>{NOT_UTF8}"], "model": "<img src=x>"})
    (tmp_path / "run" / "result.json").write_text(text)
    shardwave.bench.report.page.write([tmp_path / "run"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert not UNSAFE.search(page) and "<script>" not in page and "<img" not in page
    figures.confusion(tmp_path / "c.png", [[1, 0], [0, 1]], [HOSTILE, NOT_UTF8], "title")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_inspect_prints_in_any_encoding(shard_set: Path, encoding: str) -> None:
    ran = subprocess.run(
        [sys.executable, "cli.py", "inspect", shard_set, "--json"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.decode(encoding).splitlines()
    assert json.loads(lines[-1])["clips"] == 6 and any(
        line.strip("- ") == "" and "---" in line for line in lines
    )
