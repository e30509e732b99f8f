"""`report`: records and run folders as one self-contained HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shardwave.bench.harness.record import RecordRow, read
from shardwave.bench.report.blocks import Block, Page
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.storage.atomic import write_bytes

RECORDS, RESULT = "records.jsonl", "result.json"
MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)  # of damaged values


def write(paths: Sequence[Path | str], out_html: Path | str) -> str:
    """Write a report on records and run folders.

    Args:
        paths: Run folders, and files of records or their folders.
        out_html: File of the page.

    Returns:
        The report as Markdown.

    Raises:
        UsageError: A path is neither, or `out_html` is a folder.
        ShardwaveError: A file is damaged.
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
    """Return the report as Markdown and as HTML.

    Args:
        paths: Run folders, and files of records or their folders.

    Raises:
        UsageError: A path is neither.
        ShardwaveError: A file is damaged.
    """
    from shardwave.bench.report import render

    try:
        contents = page(paths)
        return render.markdown(contents), render.html(contents)
    except MISFITS as error:
        names = ", ".join(map(str, paths))
        raise ShardwaveError(
            f"{names}: the report cannot be made, a file there is damaged: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__} {' '.join(str(error).split())}"


def page(paths: Sequence[Path | str]) -> Page:
    """Return the contents of the report.

    Args:
        paths: Run folders, and files of records or their folders.

    Raises:
        UsageError: A path is neither, or a file of records is empty.
        ShardwaveError: Records are damaged.
    """
    from shardwave.bench.report import records, runs

    benches: list[tuple[str, list[RecordRow]]] = []
    folders: list[tuple[str, Path]] = []
    for path in map(Path, paths):
        if path.suffix == ".jsonl" or (path / RECORDS).exists():
            benches.append((_name(path), read(path)))
        elif (path / RESULT).exists():
            folders.append((_name(path), path))
        else:
            problem = "does not exist" if not path.exists() else f"holds neither {RESULT} nor {RECORDS}"
            raise UsageError(f"{path} {problem}: name run folders (train, search) or bench folders")
    summary: list[str] = []
    sections: list[tuple[str, Sequence[Block]]] = []
    for name, rows in benches:
        if not rows:
            raise UsageError(
                f"{name} holds no record, its run was interrupted before the first: measure again"
            )
        prefix = f"{name}: " if len(benches) > 1 else ""
        try:
            summary += [prefix + sentence for sentence in records.summary(rows)]
            sections += [(prefix + title, blocks) for title, blocks in records.sections(rows)]
        except MISFITS as error:
            raise ShardwaveError(
                f"{name}: the records are damaged ({_line(error)}): measure again"
            ) from error
    if folders:
        sentences, more_sections = runs.sections(folders)
        summary, sections = [*summary, *sentences], [*sections, *more_sections]
    names = [name for name, _ in [*benches, *folders]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return Page(f"Shardwave report: {', '.join(names[:4])}{more}", summary, sections)


def _name(path: Path) -> str:
    full = path.resolve()
    return full.parent.name if full.name == RECORDS else full.stem if full.suffix == ".jsonl" else full.name
