"""Common parts of the commands: shared options, the configuration file, examples, error messages."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shardwave.common import log, plugins
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.common.printable import PLAIN_SIGNS, printable, write_line
from shardwave.common.progress import heartbeat
from shardwave.common.redact import mask_url, redact, redact_values

if TYPE_CHECKING:
    from shardwave.models.runs.records import SplitKnowledge

_log = logging.getLogger("shardwave.cli")
T = TypeVar("T")
# Functions by command path that return the defaults of all options from those given, for `--show-config`.
DEFAULTS_OF: dict[str, Callable[[Mapping[str, Any]], Mapping[str, object]]] = {}
PER_CLASS = 30  # classes up to which `show_evaluation` prints a table of them
ERRORS = 5  # that it prints
CONFIG_FILE = "shardwave.toml"
_urls: list[str] = []  # URLs among the options; their passwords are masked in messages of other libraries too
COMMON = {
    "json_line": click.Option(
        ["--json", "json_line"], is_flag=True, help="Make the last line on standard output one JSON object."
    ),
    "quiet": click.Option(["--quiet", "-q"], is_flag=True, help="Show no progress and no messages."),
    "verbose": click.Option(
        ["--verbose", "-v"], is_flag=True, help="Log the files read, the automatic choices and the durations."
    ),
    "debug": click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    "show_config": click.Option(
        ["--show-config"], is_flag=True, help="Print the values of all options, and stop."
    ),
}


class Extensible(click.Choice[str]):
    """A choice that also accepts the names of extensions from other packages.

    Args:
        choices: The built-in choices.
        group: Group of the extensions, for example `engines`.
    """

    def __init__(self, choices: Sequence[str], group: str) -> None:
        super().__init__(choices)
        self.group = group

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is one of the choices or an installed extension.

        Args:
            value: Text of the option.
            param: The option, for the error message.
            ctx: Context of the command, for the error message.

        Raises:
            click.BadParameter: The value is neither.
        """
        if value not in self.choices and value in plugins.names(self.group):
            return str(value)
        return super().convert(value, param, ctx)


class Command(click.Command):
    """A command with the options `COMMON`. `--json` prints the return value of its callback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(COMMON.values())

    def invoke(self, ctx: click.Context) -> Any:
        """Apply the common options, run the command and return its result."""
        common = {name: ctx.params.pop(name) for name in COMMON}
        ctx.find_root().obj = common
        if common["show_config"]:
            own = DEFAULTS_OF[ctx.command_path](ctx.params) if ctx.command_path in DEFAULTS_OF else {}
            shown = {"command": ctx.command_path, "options": _shown({**own, **given(ctx.params)})}
            click.echo(json.dumps(shown, indent=None if common["json_line"] else 2, default=str))
            return None
        if common["quiet"]:
            os.environ["SHARDWAVE_QUIET"] = "1"
        if common["verbose"]:
            os.environ[log.VERBOSE] = "1"
        log.set_up()
        _urls.extend(value for value in ctx.params.values() if isinstance(value, str) and "://" in value)
        start = time.perf_counter()
        _log.info(
            "%s: %s",
            ctx.command_path,
            ", ".join(f"{name} {value}" for name, value in _shown(ctx.params).items()),
        )
        with heartbeat(ctx.info_name or ""):
            result = super().invoke(ctx)
        _log.info("%s took %.2f s%s", ctx.command_path, time.perf_counter() - start, _stages(result))
        if common["json_line"]:
            click.echo(json.dumps(redact_values(result if result is not None else {}), default=str))
        if isinstance(result, dict) and result.get("exit_status"):
            ctx.exit(result["exit_status"])
        return result


def _stages(result: Any) -> str:
    """Return the seconds of each stage in a result as text."""
    seconds = result.get("seconds") if isinstance(result, dict) else None
    if not isinstance(seconds, dict):
        return ""
    stages = ", ".join(
        f"{name} {value:.2f} s" for name, value in seconds.items() if isinstance(value, int | float)
    )
    return f": {stages}" if stages else ""


class Group(click.Group):
    """A group of commands that lists them in the order of their definition."""

    command_class = Command
    group_class = type  # subgroups have this class too

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of their definition."""
        return list(self.commands)


def examples(*lines: str) -> str:
    """Return an epilog of example commands, whose lines click does not wrap."""
    return "\b\nExamples:\n" + "\n".join("  shardwave " + line for line in lines)


def columns(title: str, rows: list[list[str]]) -> str:
    """Return a table with aligned columns as part of an epilog, whose lines click does not wrap.

    Args:
        title: Line above the table.
        rows: Cells of each row; all rows have the same length.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return f"\n\n\b\n{title}\n" + "\n".join("  " + line for line in lines)


def among(*values: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a shell completion that proposes `values`, for an option that accepts other values too."""
    return lambda ctx, param, incomplete: [value for value in values if value.startswith(incomplete)]


def given(values: Mapping[str, T | None]) -> dict[str, T]:
    """Return the options that are not None, so that the defaults of a dataclass apply to the others."""
    return {name: value for name, value in values.items() if value is not None}


def _shown(values: Mapping[str, object]) -> dict[str, object]:
    """Return the given options with passwords masked, also in `--storage` and `--url` if they are no URL."""
    return {
        name: mask_url(value)
        if isinstance(value, str) and ("://" in value or name in ("storage", "url"))
        else value
        for name, value in given(values).items()
    }


def show_scores(
    scores: Mapping[str, float | None], selected: str, remarks: dict[str, str] | None = None
) -> None:
    """Print scores as a table; * marks the score that selects the epoch.

    Args:
        scores: Values by `{split}_{full|slice_mean}_{accuracy|balanced_accuracy|f1|macro_f1}`.
        selected: Score that selects the epoch, `full` or `slice_mean`.
        remarks: Remark by split, printed in parentheses after the rows of the split.
    """
    metrics = ("accuracy", "balanced_accuracy", "f1", "macro_f1")
    write_line(f"{'':22}{'accuracy':>10}{'balanced':>10}{'F1':>10}{'macro F1':>10}   (F1 weighted)")
    for name in (key.removesuffix("_f1") for key in scores if key.endswith(("_full_f1", "_slice_mean_f1"))):
        values = [scores.get(f"{name}_{metric}") for metric in metrics]
        cells = ["       -  " if value is None else f"{100 * value:8.1f} %" for value in values]
        split = name.removesuffix("_slice_mean").removesuffix("_full")
        remark = f"   ({remarks[split]})" if remarks and split in remarks else ""
        mark = "* " if name.endswith(selected) else "  "
        write_line(f"{name.replace('_', ' ', 1):20}{mark}{''.join(cells)}{remark}")


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Print the scores of each class, the most confident errors and the calibration.

    Args:
        result: Return value of `evaluate`.
    """
    from shardwave.common.printable import one_line

    for name, scores in result["per_class"].items():
        if not name.endswith(f"_{result['selected_by']}") or len(result["classes"]) > PER_CLASS:
            continue
        write_line(f"{name.replace('_', ' ', 1):22}{'precision':>10}{'recall':>10}{'F1':>10}{'clips':>8}")
        for i, label in enumerate(result["classes"]):
            cells = "".join(f"{100 * scores[metric][i]:8.1f} %" for metric in ("precision", "recall", "f1"))
            write_line(f"  {one_line(label)[:20]:20}{cells}{scores['support'][i]:8}")
    if result["confident_errors"]:
        write_line("most confident errors:")
        for error in result["confident_errors"][:ERRORS]:
            said = f"{error['class']} ({error['probability']:.2f}) for {error['label']}"
            write_line(f"  {one_line(error['path'])}: {one_line(said)}")
    if result["calibration"]:
        fitted = result["calibration"]
        say(
            f"temperature {fitted['temperature']:.3g}, fitted to {fitted['clips']} clips of "
            f"{', '.join(fitted['splits'])}: log loss {fitted['loss_before']:.3f} before, "
            f"{fitted['loss_after']:.3f} after; predict uses it"
        )


def kind_of(split: SplitKnowledge) -> str:
    """Return the purpose of a split in a run, as text.

    Args:
        split: Entry of `splits` in the result of `evaluate`.
    """
    kind, trained, clips = split["kind"], split["trained"], split["clips"]
    if kind == "unknown":
        return "unknown: RUN lacks clips.npz, the table of the clips that it was trained on"
    if kind == "trained" or not trained:
        return str(kind)
    count = f"{trained} of {clips} clips were trained on"
    return count if kind == "mixed" else f"{kind}; {count}"


def show_best(result: Mapping[str, Any]) -> None:
    """Print the best trial of a search, and its epochs and seconds.

    Args:
        result: Content of the result.json of a search.
    """
    from shardwave.models.training.config import score_text

    best, epochs, seconds = result["best"], result["epochs"], result["seconds"]
    states = ", ".join(f"{count} {state}" for state, count in result["states"].items())
    score = f"{score_text(best['value'], result.get('select_metric', 'accuracy'))} ({result['selected_by']})"
    write_line(f"{states}; best: trial {best['trial']}, {score}, epoch {best['epoch']}")
    write_line(
        "  "
        + ", ".join(
            f"{name} {value:.4g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in best["params"].items()
        )
    )
    tested = {name: value for name, value in result.get("scores", {}).items() if name.startswith("test_")}
    if tested:
        show_scores(tested, result["selected_by"], {"test": "held out, scored once"})
    cost = f"{epochs['run']} epochs run, {epochs['saved']} saved by stopping"
    say(f"{cost}; {seconds['total']:.1f} s, {seconds['overhead']:.1f} s of it overhead")


def read_config(path: Path, group: click.Group) -> dict[str, object]:
    """Read option defaults from a TOML file.

    Args:
        path: The file, with a table per command.
        group: The group of the commands.

    Returns:
        Values by command and option, under the names of the parameters.

    Raises:
        UsageError: The file cannot be read, is not TOML, or names an unknown command or option.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--config {path}: the file is not valid TOML: {error}") from error
    return _checked(tables, group, path)


def _checked(tables: Mapping[str, object], group: click.Group, path: Path) -> dict[str, object]:
    checked: dict[str, object] = {}
    for name, table in tables.items():
        command = group.commands.get(name)
        if command is None or not isinstance(table, dict):
            raise UsageError(f"{path}: [{name}] is not a command; commands: {', '.join(group.commands)}")
        if isinstance(command, click.Group):
            checked[name] = _checked(table, command, path)
            continue
        known = {
            option.lstrip("-").replace("-", "_"): param.name
            for param in command.params
            for option in param.opts
        }
        unknown = [key for key in table if key.replace("-", "_") not in known]
        if unknown:
            raise UsageError(f"{path}: [{name}] has no option {unknown[0]!r}; see shardwave {name} --help")
        checked[name] = {known[key.replace("-", "_")]: value for key, value in table.items()}
    return checked


def run(group: click.Group) -> None:
    """Run the command line and exit with its status. An error is printed as one line.

    Args:
        group: The group of all commands.
    """
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=PLAIN_SIGNS)
    try:
        returned = group.main(args=arguments, prog_name="shardwave", standalone_mode=False)
        status = returned if isinstance(returned, int) else 0  # click returns the status given to ctx.exit
    except click.exceptions.Exit as error:
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = fail("interrupted", 130, arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "shardwave"
        message = error.format_message().replace("\n", " ").rstrip(".")
        status = fail(
            f"{message} (see {command} --help)" if "--help" not in message else message, 2, arguments
        )
    except ShardwaveError as error:
        status = fail(str(error), error.exit_status, arguments)
    except OSError as error:
        status = fail(
            f"{error.filename or 'file system'}: {error.strerror or error}{_advice(error, group, arguments)}",
            1,
            arguments,
        )
    except Exception as error:
        status = fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1, arguments)
    sys.exit(status)


def _advice(error: OSError, group: click.Group, arguments: list[str]) -> str:
    """Return the remedy for a full disk, an exceeded quota or a file size limit; else an empty text."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    command = next((group.commands[name] for name in arguments if name in group.commands), None)
    can_resume = command is not None and any("--resume" in param.opts for param in command.params)
    resumes = can_resume and "--resume" not in arguments
    return ": free some space, then run the same command again" + (" with --resume" if resumes else "")


def fail(message: str, status: int, arguments: list[str]) -> int:
    """Print an error as one line, with `--json` also as a JSON object, and return `status`.

    Args:
        message: The error; passwords in it are masked.
        status: Exit status of the program.
        arguments: The command line, which may hold `--debug` and `--json`.
    """
    if "--debug" in arguments:
        write_line(redact(traceback.format_exc(), *_urls), sys.stderr)
    message = redact(message, *_urls)
    write_line("error: " + printable(" ".join(message.split()), lines=False), sys.stderr)
    if "--json" in arguments:
        click.echo(json.dumps({"error": message, "exit_status": status}))
    return status


def reference(group: click.Group) -> str:
    """Return the help of every command as Markdown, for docs/reference.md (`make docs`)."""
    lines = [
        "# Reference of commands and options",
        "",
        "Written by `make docs` from the commands themselves.",
        "",
    ]

    def add(command: click.Command, parent: click.Context) -> None:
        context = click.Context(
            command,
            parent,
            command.name,
            terminal_width=110,
            max_content_width=110,
            **command.context_settings,
        )
        if isinstance(command, click.Group):
            for child in command.commands.values():
                add(child, context)
            return
        lines.extend([f"## {context.command_path}", "", "```", command.get_help(context), "```", ""])

    root = click.Context(group, info_name="shardwave", **group.context_settings)
    for command in group.commands.values():
        add(command, root)
    return "\n".join(lines)
