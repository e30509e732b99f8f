"""result.json of a run folder. Each update replaces the file atomically, so that it is valid at any time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from shardwave.common import regular_file, typed
from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.redact import redact_values
from shardwave.models.runs.records import RunResult
from shardwave.models.training.numerics import POLICY
from shardwave.shards.storage.atomic import write_bytes
from shardwave.shards.storage.locks import try_lock

FORMAT = "shardwave-result-2"
RESULT = "result.json"
LOCK = ".run.lock"


class Result:
    """Context manager that writes result.json of a run folder.

    The state is RUNNING inside the `with` block, then COMPLETE, INTERRUPTED (after KeyboardInterrupt or
    SystemExit) or FAILED (with the error).

    Args:
        folder: Run folder.
        command: Name of the command.
        writes: Whether this process writes the file; of several processes that train together, only one does.
        **fields: Fields that are known at the start.
    """

    def __init__(self, folder: Path, command: str, writes: bool = True, **fields: Any) -> None:
        self.folder, self.writes = folder, writes
        start = {"format": FORMAT, "command": command, "state": "RUNNING", "error": None}
        self.fields = cast(RunResult, start | fields)

    def __enter__(self) -> Result:
        self.fields["environment"] = {**environment(), "numerics": POLICY}
        self.write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.update(state="COMPLETE")
        elif issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self.update(state="INTERRUPTED", error=kind.__name__)
        else:
            self.update(state="FAILED", error=f"{error}" or kind.__name__)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Set fields of `RunResult` without writing the file."""
        self.fields = cast(RunResult, {**self.fields, **fields})

    def update(self, **fields: Any) -> None:
        """Set fields of `RunResult` and write the file."""
        self.add(fields)
        self.write()

    def write(self) -> None:
        """Write the file, with passwords masked; NaN and infinite values become null."""
        if self.writes:
            fields = redact_values(self.fields)
            try:
                text = _lines(fields)
            except ValueError:  # JSON has no NaN or infinite values
                text = _lines(json.loads(json.dumps(fields), parse_constant=lambda name: None))
            write_bytes(self.folder / RESULT, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def open_run(folder: Path, resume: bool) -> Iterator[RunResult | None]:
    """Create and lock a run folder, inside a `with` block.

    The system releases the lock of a killed process. Temporary files of killed processes are removed.

    Args:
        folder: Run folder.
        resume: Whether the folder may hold an earlier run.

    Yields:
        The content of the earlier result.json, or None.

    Raises:
        UsageError: The folder is a file, or it holds a run and `resume` is false.
        ShardwaveError: Another process uses the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file: give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / LOCK)
    if lock is None:
        raise ShardwaveError(
            f"another process trains or searches in {folder}: wait until it ends, or use another --out"
        )
    try:
        earlier = read(folder) if (folder / RESULT).exists() else None
        if earlier is not None and not resume:
            raise UsageError(
                f"{folder} already holds a run ({earlier['state']}): "
                "use --resume to continue it, or another --out"
            )
        for path in [*folder.glob(".*.tmp"), *folder.glob("kept/.*.tmp")]:
            path.unlink(missing_ok=True)
        yield earlier
    finally:
        lock.release()


def read(folder: Path | str) -> RunResult:
    """Read result.json of a run folder.

    Raises:
        UsageError: The file does not exist or cannot be read, or another version of the program wrote it.
        ShardwaveError: The file is damaged; the message names the field.
    """
    path = Path(folder) / RESULT
    try:
        result = typed.parse(
            regular_file.read_bytes(path), path, "restore it, or run again into another folder"
        )
    except FileNotFoundError:
        raise UsageError(f"{folder} is not a run folder: it has no {RESULT}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        version = result.get("format") if isinstance(result, dict) else None
        raise UsageError(
            f"{path} has format {typed.shown(version)}, not {FORMAT}: it was written by another version"
        )
    return typed.check(result, RunResult, path, "restore it, or run again into another folder")


def earlier_seconds(earlier: RunResult | None) -> float:
    """Return the wall time of the earlier attempts of a resumed run, in seconds; 0 without any."""
    return 0.0 if earlier is None else earlier.get("seconds", {}).get("total", 0.0)


def _lines(fields: Mapping[str, object]) -> str:
    """Format JSON with one line per field and per entry of a list of records (history, per_fold)."""
    rows = []
    for name, value in fields.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = (
                "[\n    " + ",\n    ".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n  ]"
            )
        rows.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(rows) + "\n}\n"
