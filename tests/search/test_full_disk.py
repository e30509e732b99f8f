"""Searches on a full disk, and what it (or a kill, or a power failure) leaves: resumed, they end with
every trial once."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import objectives
import pytest
from objectives import EPOCHS, curve

from shardwave.common.errors import ShardwaveError
from shardwave.search import line_file, outcome
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, LogUniform, Space
from shardwave.search.trial import Trial
from shardwave.search.trial_log import TrialLog, read_trials

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "run_search.py"
SPACE = Space({"quality": Grid((0.25, 0.5, 0.75)), "rate": LogUniform(1e-4, 1e-1)})  # as run_search.py has it
TRIALS = 7


def limited(size: int) -> None:
    """Let no file grow beyond `size` bytes: the write that reaches it comes short, as on a full disk, and
    the next one fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def backend(name: str, folder: Path, trials: int = TRIALS) -> list[Trial]:
    budget = SearchBudget(trials=trials, epochs=EPOCHS, jobs=2, scheduler="none", sampler="random")
    return make_backend(name).run(objectives.smooth, SPACE, budget, 0, TrialLog(folder)).trials


def check_whole(folder: Path, trials: list[Trial]) -> None:
    """Every trial once, in memory and on disk, with the parameters that follow from the seed."""
    assert [trial.trial for trial in trials] == list(range(TRIALS))
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert sorted(row["trial"] for row in rows) == list(range(TRIALS))
    for trial in trials:
        assert trial.state == "COMPLETE" and trial.values == [
            curve(trial.params, epoch) for epoch in range(1, EPOCHS + 1)
        ]
        assert trial.params == SPACE.point(trial.trial, 0, shuffle=True)


@pytest.mark.parametrize(
    ("name", "size"),
    [("optuna", 700), ("optuna", 3_000), ("optuna", 11_000), ("random", 300), ("random", 1_500)],
)
def test_a_search_that_exceeded_the_file_size_limit_is_resumed(name: str, size: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name, str(tmp_path), "smooth_in", str(TRIALS)],
        preexec_fn=lambda: limited(size), capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and f"File too large: '{tmp_path}" in done.stderr.splitlines()[-1], (
        done.stderr
    )
    for path in tmp_path.glob("*.j*"):
        assert path.read_bytes()[-1:] in (b"", b"\n")  # no half line
    check_whole(tmp_path, backend(name, tmp_path))


def test_an_incomplete_journal_line_is_removed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Wherever it was cut off, and with the garbage that a power failure leaves; damaged elsewhere, it is
    made anew."""
    whole = tmp_path / "full"
    whole.mkdir()
    backend("optuna", whole, 4)
    content = (whole / "study.journal").read_bytes()
    lines = content.splitlines(keepends=True)
    torn = {
        "in its first line": content[:20],
        "in the middle": content[: len(content) // 2],
        "in its last line": content[:-5],
        "without its last newline": content[:-1],
        "zeros at its end": content + b"\0" * 500,
        "no JSON at its end": content + b"]\n",
        "zeros within": lines[0] + b"\0" * 100 + b"".join(lines[1:]),
        "a line is missing": b"".join(lines[:5] + lines[6:]),
        "empty": b"",
    }
    finished = (whole / "trials.jsonl").read_text()
    for case, damaged in torn.items():
        folder = tmp_path / case
        shutil.copytree(whole, folder)
        (folder / "study.journal").write_bytes(damaged)
        check_whole(folder, backend("optuna", folder))
        assert (folder / "trials.jsonl").read_text().startswith(finished), (
            case
        )  # what had ended was not run again
        said = capfd.readouterr().err
        if damaged and case != "without its last newline":
            assert "study.journal" in said, case


def test_an_incomplete_line_of_the_log_is_removed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend("random", tmp_path, 4)
    path = tmp_path / "trials.jsonl"
    first, second, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:-30] + b"\n" + b"".join(others)[:-10])
    assert len(read_trials(tmp_path)) == 2 and path.read_bytes().endswith(
        others[-1][:-10]
    )  # reading changes nothing
    assert "trials.jsonl line 2 is damaged: not JSON: the line is skipped" in capfd.readouterr().err
    trials = backend("random", tmp_path)
    assert [trial.trial for trial in trials] == list(range(TRIALS)) and len(read_trials(tmp_path)) == TRIALS
    assert "removed an incomplete last line" in capfd.readouterr().err


def test_a_shared_journal(tmp_path: Path) -> None:
    """Half a line at its end is removed; one that is damaged elsewhere, or is something else, is named and
    left as it is."""
    path, space = tmp_path / "study.journal", SPACE

    def run(trials: int) -> int:
        budget = SearchBudget(trials=trials, epochs=EPOCHS, jobs=1, scheduler="none", sampler="random")
        return len(
            make_backend("optuna", storage=f"journal:{path}").run(objectives.smooth, space, budget, 0).trials
        )

    assert run(2) == 2
    path.write_bytes(path.read_bytes()[:-7])
    assert run(3) == 3
    lines = path.read_bytes().splitlines(keepends=True)
    for content, number in (
        (b"".join([*lines[:3], b'{"op_co\n', *lines[3:]]), 4),
        (b"my notes\nof today", 1),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ShardwaveError,
            match=f"--storage journal:{path}: line {number} is damaged or no line of a journal",
        ):
            run(4)
        assert path.read_bytes() == content


def test_leftovers_in_the_run_folder(tmp_path: Path) -> None:
    kept, outside = tmp_path / outcome.KEPT, tmp_path / "outside"
    kept.mkdir()
    outside.write_text("mine")
    ours = [
        ".result.json.12.tmp",
        ".checkpoint.ckpt.tmp",
        ".cost.png.3.tmp",
        "kept/.trial-3.ckpt.9.tmp",
        "kept/trial-3.ckpt",
    ]
    others = [
        "kept/trial-1.ckpt",
        "kept/trial-1.json",
        "notes.tmp",
        ".mine.tmp",
        "kept/trial-x.ckpt",
        "trial-3.ckpt",
    ]
    for name in ours + others:
        (tmp_path / name).write_text("x")
    (kept / "trial-4.ckpt").symlink_to(outside)
    (kept / "trial-5.ckpt").mkdir()
    outcome.remove_leftovers(tmp_path, [Trial(1, {}, "COMPLETE", [0.5]), Trial(3, {}, "COMPLETE", [0.4])])
    assert not any((tmp_path / name).exists() for name in ours) and all(
        (tmp_path / name).exists() for name in others
    )
    assert outside.read_text() == "mine" and (kept / "trial-5.ckpt").is_dir()


def test_appended_lines_that_do_not_fit_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"trial": 1}\n')
    code = (
        "import sys; from pathlib import Path; from shardwave.search import line_file; "
        "line_file.append(Path(sys.argv[1]), b'x' * 100)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=lambda: limited(50),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert f"File too large: '{path}'" in done.stderr and path.read_bytes() == b'{"trial": 1}\n'
    assert (
        line_file.remove_incomplete_line(path, b'{"trial"') == 0
        and line_file.remove_incomplete_line(tmp_path / "none", b"{") == 0
    )


@contextlib.contextmanager
def disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """A file system of its own, where this user may mount one."""
    folder.mkdir()
    options = f"size={int(megabytes * 2**20)}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount")
@pytest.mark.parametrize("name", ["optuna", "random"])
def test_a_full_disk(name: str, tmp_path: Path, feature_set: Path) -> None:
    """The whole command on a real full disk: one line that names --resume, no temporary files left, then
    all trials."""
    with disk(tmp_path / "disk", 1.5) as folder:
        out = folder / "run"
        command = [
            "search",
            feature_set,
            "--model",
            "mlp",
            "--backend",
            name,
            "--epochs",
            "2",
            "--trials",
            "40",
            "--jobs",
            "2",
        ]
        command += ["--val-fold", "1", "--device", "cpu", "--out", out, "--quiet"]

        def run(*more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, str(ROOT / "cli.py"), *map(str, command), *more],
                capture_output=True,
                text=True,
                timeout=300,
            )

        filler = folder / "filler"
        for free in (8_000, 30_000, 150_000):  # bytes that are left to the search
            usage = shutil.disk_usage(folder)
            filler.write_bytes(b"\0" * max(0, usage.free - free))
            full = run(*(["--resume"] if (out / "result.json").exists() else []))
            assert (
                full.returncode == 1 and "space left on device: free some space, then run" in full.stderr
            ), full.stderr
            assert "with --resume" in full.stderr and len(full.stderr.splitlines()) == 1
            assert not list(out.rglob("*.tmp"))
            filler.unlink()
        done = run("--resume")
        assert done.returncode == 0, done.stderr
        assert sorted(trial.trial for trial in read_trials(out)) == list(range(40))
        assert (
            json.loads((out / "result.json").read_text())["state"] == "COMPLETE"
            and not (out / "kept").exists()
        )
        assert "FAILED" not in {trial.state for trial in read_trials(out)}
