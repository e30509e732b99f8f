"""`report`: records and run folders as one self-contained HTML page, or the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.harness.record import read
from shardwave.bench.report.blocks import Block, Page
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.storage.atomic import write_bytes

RECORDS, RESULT = "records.jsonl", "result.json"
MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)  # of values that fit no page


def write(paths: Sequence[Path | str], out_html: Path | str) -> str:
    """Report on `paths`, bench records (files or their folders) and run folders, in the page `out_html`.

    Returns:
        The report as Markdown.

    Raises:
        UsageError: a path is neither.
    """
    if not paths:
        raise UsageError("report needs at least one run folder or bench folder")
    out = Path(out_html)
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file")
    text, web = rendered(paths)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, web.encode())
    return text


def rendered(paths: Sequence[Path | str]) -> tuple[str, str]:
    """The report as Markdown and as HTML; raises ShardwaveError, naming `paths`, where a file does not hold what it should."""
    from shardwave.bench.report import render

    try:
        contents = page(paths)
        return render.markdown(contents), render.html(contents)
    except MISFITS as error:
        named = ", ".join(map(str, paths))
        raise ShardwaveError(f"{named}: the report cannot be made, a file there is damaged: {_line(error)}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__} {' '.join(str(error).split())}"


def page(paths: Sequence[Path | str]) -> Page:
    """The report's contents."""
    from shardwave.bench.report import records, runs

    benches: list[tuple[str, list[dict[str, Any]]]] = []
    folders: list[tuple[str, Path]] = []
    for path in map(Path, paths):
        if path.suffix == ".jsonl" or (path / RECORDS).exists():
            benches.append((_name(path), read(path)))
        elif (path / RESULT).exists():
            folders.append((_name(path), path))
        else:
            what = "does not exist" if not path.exists() else f"holds neither {RESULT} nor {RECORDS}"
            raise UsageError(f"{path} {what}: name run folders (train, search) or bench folders")
    summary: list[str] = []
    sections: list[tuple[str, Sequence[Block]]] = []
    for name, rows in benches:
        if not rows:
            raise UsageError(f"{name} holds no record: its measurement was interrupted before the first; measure again")
        several = f"{name}: " if len(benches) > 1 else ""
        try:
            summary += [several + sentence for sentence in records.summary(rows)]
            sections += [(several + title, blocks) for title, blocks in records.sections(rows)]
        except MISFITS as error:
            raise ShardwaveError(f"{name}: the records are damaged ({_line(error)}): measure again") from error
    if folders:
        sentences, made = runs.sections(folders)
        summary, sections = [*summary, *sentences], [*sections, *made]
    names = [name for name, _ in [*benches, *folders]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return Page(f"Shardwave report: {', '.join(names[:4])}{more}", summary, sections)


def _name(path: Path) -> str:
    found = path.resolve()
    return found.parent.name if found.name == RECORDS else found.stem if found.suffix == ".jsonl" else found.name
