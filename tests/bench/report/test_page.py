"""Reports: self-contained, complete, true to their records; looked at in a real browser where there is
one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shardwave.bench.harness.record import Record, append
from shardwave.bench.report import page as report
from shardwave.bench.report import render
from shardwave.bench.report.blocks import Matrix, Page, Table
from shardwave.common.errors import UsageError

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=2000",
]
TOLD = (
    "3,000", "FFT <alone>", "no CUDA device", "exponent 0.98", "Confusion matrix", "Searches side by side",
    "All 4 trials",
    "rain <&> saw",
)  # fmt: skip


def clip_step(step, work, when):
    return {"clip_step": {"step": step, "work": work, "when": when}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Records of every kind."""
    folder = tmp_path_factory.mktemp("measured")
    images, batches = clip_step("Computing images", 30, "once"), clip_step("Loading batches", 10, "epoch")
    parts = {"parts": {"training steps": 2.0, "waiting for data": 1.0}, "whole": "An epoch"}
    growth = {"axis": "clips", "measure": "seconds", "points": [[10, 1.0], [100, 9.6]]}
    rows = [
        Record("preprocess", "torch cpu: full", "ours", "x real time", [3000.0, 3100.0, 2900.0], images, 0.3),
        Record("preprocess", "FFT <alone>", "baseline", "x real time", [10_000.0, 10_100.0], {}),
        Record(
            "loading",
            "ours",
            "ours",
            "samples/s",
            [1000.0, 1100.0],
            {"sample_bytes": 262144, **batches},
            0.25,
        ),
        Record("training", "cnn: one epoch", "ours", "s", [3.0], parts),
        Record("scale", "build over clips", "ours", "exponent", [0.98], growth),
        Record("transfer", "pinned", "ours", "GB/s", skipped="no CUDA device"),
    ]
    for row in rows:
        append(folder / "records.jsonl", row)
    return folder


def test_the_summary_names_the_bottleneck_with_figures(bench):
    summary = report.page([bench]).summary
    # 30 s at 3000 x real time are 10 ms, ten epochs of ten samples at 1050 samples/s are 95.2 ms
    assert summary[0] == (
        "Loading batches is your bottleneck: 90 % of the 105 ms that a 30 s clip takes from file through "
        "10 epochs, "
        "at 0.25 of its limit on this machine."
    )
    assert summary[1] == "Farthest from its limit: Loading batches, ours, 0.25 of it."
    assert summary[2].startswith("1 of 6 cases were skipped")


def test_the_page_is_self_contained_and_complete(bench, runs, tmp_path):
    out = tmp_path / "report.html"
    text = report.write([bench, *runs.values()], out)
    page = out.read_text()
    assert not re.search(r"https?:|src=(?!.data:)|url\(|@import|<script|<link", page), (
        "nothing is fetched from anywhere"
    )
    assert "prefers-color-scheme: dark" in page and "@media print" in page and 'name="viewport"' in page
    plain = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for told in TOLD:
        assert told in plain, told
        assert told in text.replace("\\|", "|"), told
    assert page.count("<svg") >= 10 and page.count("<figure") == page.count("</figure>")
    assert "<alone>" not in page, "names are escaped"


def test_numbers_of_a_search_are_those_of_its_folder(runs, tmp_path):
    result = json.loads((runs["optuna"] / "result.json").read_text())
    trials = [json.loads(line) for line in (runs["optuna"] / "trials.jsonl").read_text().splitlines()]
    best = max(trial["value"] for trial in trials)
    text = report.write([runs["random"], runs["optuna"]], tmp_path / "r.html")
    assert (
        f"best {100 * best:.1f} % validation accuracy ({result['selected_by']})" in text
        and f"{result['epochs']['saved']} epochs saved" in text
    )
    (side_by_side,) = [line for line in text.splitlines() if line.startswith("| optuna | optuna |")]
    assert f"| {result['epochs']['run']} | {result['epochs']['saved']} |" in side_by_side
    over_time, over_epochs = [
        line.rstrip(" |") for line in text.splitlines() if re.match(r"\| optuna \| \d[\d.]*: ", line)
    ]
    assert over_time.endswith(f": {best:.3g}") and over_epochs.endswith(
        f"{result['epochs']['run']}: {best:.3g}"
    )


def test_curves_and_confusion_are_those_of_the_run(runs, tmp_path):
    from shardwave.bench.report.blocks import Lines, Matrix, Table
    from shardwave.bench.report.runs import sections

    result = json.loads((runs["mlp"] / "result.json").read_text())
    blocks = sections([("mlp", runs["mlp"])])[1][0][1]
    accuracy = next(
        block for block in blocks if isinstance(block, Lines) and block.title.startswith("Accuracy over")
    )
    selected = next(line for line in accuracy.lines if "selected" in line.name)
    assert [y for _, y in selected.points] == [entry["val_full_accuracy"] for entry in result["history"]]
    assert accuracy.mark == result["best_epoch"]
    assert "training (while learning)" in [line.name for line in accuracy.lines]
    table = next(
        block
        for block in blocks
        if isinstance(block, Table) and block.caption.startswith("Scores of the saved")
    )
    assert [row[0] for row in table.rows] == ["train (while learning)", "validation"]
    (matrix,) = [block for block in blocks if isinstance(block, Matrix)]
    assert sum(map(sum, matrix.counts)) == 30 and matrix.names == result["classes"]


def test_unfinished_runs_show_their_state(runs, tmp_path):
    shutil.copytree(runs["mlp"], tmp_path / "broken")
    path = tmp_path / "broken" / "result.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "state": "FAILED", "error": "no memory", "scores": {}})
    )
    text = report.write([tmp_path / "broken"], tmp_path / "r.html")
    assert "FAILED (no memory)" in text


def test_wrong_paths_are_named(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        report.write([tmp_path / "none"], tmp_path / "r.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds neither result.json nor records.jsonl"):
        report.write([tmp_path / "empty"], tmp_path / "r.html")
    with pytest.raises(UsageError, match="at least one"):
        report.write([], tmp_path / "r.html")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_in_a_browser(bench, runs, tmp_path):
    """Phone: nothing is wider than the screen. Dark: the paper is dark. Print: a PDF of pages."""
    from PIL import Image

    page = tmp_path / "report.html"
    report.write([bench, *runs.values()], page)

    def browse(*options: str) -> str:
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    measured = tmp_path / "measured.html"
    title = "[document.documentElement.scrollWidth, innerWidth, document.querySelectorAll('svg').length]"
    measured.write_text(
        page.read_text().replace("</body>", f"<script>document.title = {title}</script></body>")
    )
    for width in (500, 1100):
        dom = browse(f"--window-size={width},900", "--dump-dom", measured.as_uri())
        found = re.search(r"<title>(\d+),(\d+),(\d+)</title>", dom)
        assert found, dom[:300]
        assert int(found[1]) <= int(found[2]), f"something is wider than a window of {width}"
        assert int(found[3]) >= 10

    def screenshot(*options: str) -> Image.Image:
        browse("--window-size=900,1400", f"--screenshot={tmp_path / 'shot.png'}", *options, page.as_uri())
        return Image.open(tmp_path / "shot.png").convert("RGB")

    light, dark = screenshot(), screenshot("--blink-settings=preferredColorScheme=0")
    assert light.getpixel((3, 3)) == (255, 255, 255)
    assert max(dark.getpixel((3, 3))) < 60
    colours = {colour for _, colour in light.getcolors(1 << 20)}
    assert {(0, 114, 178), (138, 148, 158)} <= colours, "the bars of ours and of the baseline are drawn"
    browse("--print-to-pdf=" + str(tmp_path / "page.pdf"), page.as_uri())
    assert Path(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_forty_classes_and_sixteen_columns_fit_the_page(tmp_path):
    names = [f"a class with a long name {i}" for i in range(40)]
    counts = [[120 if row == column else (row + column) % 3 for column in range(40)] for row in range(40)]
    head = ("trial", "state", "value", "epochs", "seconds", *(f"conv{i}_channels_of_it" for i in range(11)))
    table = Table(head, [("0", "COMPLETE", "84.2 %", "10", "123.4", *["0.0000512"] * 11)], range(2, 16))
    page = render.html(
        Page("t", ["s"], [("runs/cnn", [Matrix("m", "true", "predicted", names, counts), table])])
    )
    measured = tmp_path / "page.html"
    wide = "[...document.querySelectorAll('.scroll')].map(box => box.scrollWidth - box.clientWidth)"
    measured.write_text(page.replace("</body>", f"<script>document.title = {wide}</script></body>"))
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1200,900",
        "--dump-dom",
    ]
    shown = subprocess.run(
        [*command, measured.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = re.search(r"<title>(-?\d+),(-?\d+)</title>", shown)
    assert found and (int(found[1]), int(found[2])) == (0, 0), "pixels that stand out at the right"
