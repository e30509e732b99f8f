"""Run folders: result.json, rewritten whole as a command goes on, so that a reader always finds a valid one (DESIGN §2)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardwave.common import regular_file, typed
from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.redact import redact_values
from shardwave.models.runs.records import RunResult
from shardwave.shards.storage.atomic import write_bytes
from shardwave.shards.storage.locks import try_lock

FORMAT = "shardwave-result-2"
RESULT = "result.json"
LOCK = ".run.lock"


class Result:
    """A run folder's result, a context manager: RUNNING in it, then COMPLETE, INTERRUPTED (Ctrl-C) or FAILED (with its error)."""

    def __init__(self, folder: Path, command: str, writes: bool = True, **fields: Any) -> None:
        self.folder, self.writes = folder, writes  # of several processes, one writes
        self.fields: dict[str, Any] = {"format": FORMAT, "command": command, "state": "RUNNING", "error": None} | fields

    def __enter__(self) -> Result:
        self.fields["environment"] = environment()
        self.write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.update(state="COMPLETE")
        elif issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self.update(state="INTERRUPTED", error=kind.__name__)
        else:
            self.update(state="FAILED", error=f"{error}" or kind.__name__)

    def update(self, **fields: Any) -> None:
        """Set fields and write."""
        self.fields |= fields
        self.write()

    def write(self) -> None:
        if self.writes:
            fields = redact_values(self.fields)
            try:
                text = _lines(fields)
            except ValueError:  # NaN or an infinite value, which JSON does not know: null stands for it
                text = _lines(json.loads(json.dumps(fields), parse_constant=lambda name: None))
            write_bytes(self.folder / RESULT, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def open_run(folder: Path, resume: bool) -> Iterator[dict[str, Any] | None]:
    """Make the run folder and lock it while the context lasts. The lock of a process that was killed is free.

    Temporary files that a killed process left in it are removed.

    Yields:
        The earlier result, where the folder holds one.

    Raises:
        UsageError: The folder holds a run and `resume` is false, or it is a file.
        ShardwaveError: Another process trains or searches in it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file: name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / LOCK)
    if lock is None:
        raise ShardwaveError(f"another process trains or searches in {folder}: wait until it has ended, or choose another --out")
    try:
        earlier = read(folder) if (folder / RESULT).exists() else None
        if earlier is not None and not resume:
            raise UsageError(
                f"{folder} already holds a run ({earlier['state']}): give --resume to go on with it, or another --out"
            )
        for path in [*folder.glob(".*.tmp"), *folder.glob("kept/.*.tmp")]:
            path.unlink(missing_ok=True)
        yield earlier
    finally:
        lock.release()


def read(folder: Path | str) -> dict[str, Any]:
    """Read a run folder's result.

    Raises:
        UsageError: there is none, or another version wrote it.
        ShardwaveError: it is damaged; names the field.
    """
    path = Path(folder) / RESULT
    try:
        result = typed.parse(regular_file.read_bytes(path), path, "restore it, or run again into another folder")
    except FileNotFoundError:
        raise UsageError(f"{folder} is no run folder: it has no {RESULT}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        found = result.get("format") if isinstance(result, dict) else None
        raise UsageError(f"{path} has format {typed.shown(found)}, not {FORMAT}: it was written by another version")
    return dict(typed.check(result, RunResult, path, "restore it, or run again into another folder"))


def _lines(fields: dict[str, Any]) -> str:
    """JSON with a line per field, and a line per entry of the lists of records (history, per_fold)."""
    rows = []
    for name, value in fields.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n    " + ",\n    ".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n  ]"
        rows.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(rows) + "\n}\n"
