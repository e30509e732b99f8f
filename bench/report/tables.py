"""`make bench-tables`: write the tables of the documents from `bench/results/`.

A table is the text between `<!-- bench-table FILE STAGE [PATTERN] -->` and `<!-- /bench-table -->`. It lists
the cases of STAGE (`*`: all stages) in `bench/results/FILE.jsonl` whose names match the regular expression
PATTERN. The FILE `accuracy` is `bench/results/accuracy.json`, and `accuracy-table` the one of a table of
features; for the FILE `defaults`, STAGE is a model (`shardwave.bench.defaults`), and for `search-quality` a
kind of table (`shardwave.bench.report.quality.document_table`). The FILE `search-tables` describes the tables
of learning curves.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from shardwave.bench import accuracy
from shardwave.bench import defaults as settings
from shardwave.bench.harness.record import ROLES, RecordRow, measured, read
from shardwave.bench.report import picture, quality, search_figures
from shardwave.bench.report.blocks import number
from shardwave.bench.report.render import table
from shardwave.bench.search_quality import describe
from shardwave.common.errors import UsageError
from shardwave.shards.storage.atomic import write_bytes

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parents[1] / "results"
PLACE = re.compile(
    r"(?P<start><!-- bench-table (?P<file>[\w.-]+) (?P<stage>[\w*-]+)(?: (?P<pattern>[^>]*?))? -->\n)"
    r"(?P<body>.*?)(?P<end><!-- /bench-table -->)",
    re.DOTALL,
)


def filled(text: str, results: Path = RESULTS) -> str:
    """Return `text` with all tables written from the records.

    Args:
        text: Markdown.
        results: Folder of the records.

    Raises:
        UsageError: A table names a file or cases that do not exist.
    """

    def write(match: re.Match[str]) -> str:
        if match["file"] == "search-tables":
            table = describe.document_table()
        elif match["file"] == "defaults":
            table = settings.table(read(_file(results, "defaults.jsonl")), match["stage"])
        elif match["file"] == "search-quality":
            table = quality.document_table(
                measured(read(_file(results, "search-quality.jsonl"))), match["stage"]
            )
        elif match["file"] in ("accuracy", "accuracy-table"):
            contents = _file(results, f"{match['file']}.json").read_text(encoding="utf-8")
            table = accuracy.table(json.loads(contents)).strip()
        else:
            table = rendered(read(_file(results, f"{match['file']}.jsonl")), match["stage"], match["pattern"])
        return f"{match['start']}\n{table}\n\n{match['end']}"

    return PLACE.sub(write, text)


def rendered(rows: Sequence[RecordRow], stage: str, pattern: str | None = None) -> str:
    """Return the Markdown table of a stage, with the machine, the commit and the date.

    Args:
        rows: Records.
        stage: Stage, or `*` for all stages.
        pattern: Regular expression that the names of the cases match.

    Raises:
        UsageError: No record matches.
    """
    records = [
        row
        for row in rows
        if stage in ("*", row["stage"]) and (not pattern or re.search(pattern, row["case"]))
    ]
    if not records:
        raise UsageError(
            f"a table has no record of stage {stage}{f' and cases like {pattern}' if pattern else ''}: "
            "correct its marker"
        )
    cells: list[tuple[str, ...]] = []
    for row in sorted(records, key=lambda row: ROLES.index(row["role"])):
        if row["skipped"]:
            cells.append((row["case"], row["role"], "skipped: " + row["skipped"], "", "", ""))
            continue
        limit = "" if row["of_limit"] is None else number(row["of_limit"], 2)
        spread = f"{number(row['q1'])} – {number(row['q3'])}" if row["n"] > 1 else ""
        cells.append(
            (row["case"], row["role"], f"{number(row['median'])} {row['unit']}", spread, str(row["n"]), limit)
        )
    origin = "<br>".join(sorted({_origin(row) for row in records}))
    head: tuple[str, ...] = ("case", "", "median", "quartiles", "n", "of limit")
    if not any(cell[-1] for cell in cells):
        head, cells = head[:-1], [cell[:-1] for cell in cells]
    return table(head, cells, range(2, len(head))) + f"\n\n<sub>{origin}</sub>"


def _origin(row: RecordRow) -> str:
    """Return the machine, the commit and the date of a record as text."""
    environment = row["environment"]
    date = (row["date"] or "")[:10]
    gpu = f", {', '.join(environment['gpu'])}" if environment.get("gpu") else ""
    return f"{environment['cpu']}, {environment['cores']} cores{gpu}; commit {row['commit']}; {date}."


def stale() -> list[Path]:
    """Return the Markdown files whose tables differ from the records."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in documents if (text := path.read_text(encoding="utf-8")) != filled(text)]


def main() -> None:
    """Write all tables, the picture of the README and the figures of docs/search.md."""
    if picture.write(read(_file(RESULTS, "throughput.jsonl")), ROOT / "docs" / "throughput.svg"):
        print("docs/throughput.svg: drawn", file=sys.stderr)
    searches = measured(read(_file(RESULTS, "search-quality.jsonl")))
    for name, content in (
        ("search-regret.svg", search_figures.regret(searches)),
        ("search-ranks.svg", search_figures.ranks(searches)),
    ):
        path = ROOT / "docs" / name
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
            print(f"docs/{name}: drawn", file=sys.stderr)
    for path in stale():
        write_bytes(path, filled(path.read_text(encoding="utf-8")).encode())
        print(f"{path.relative_to(ROOT)}: tables written", file=sys.stderr)


def _file(results: Path, name: str) -> Path:
    path = results / name
    if not path.exists():
        known = ", ".join(sorted(file.name for file in results.glob("*.json*"))) or "none"
        raise UsageError(f"a table names bench/results/{name}, which does not exist; files: {known}")
    return path


if __name__ == "__main__":
    main()
