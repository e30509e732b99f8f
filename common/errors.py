"""Errors that end a command with a message of one line, and their exit statuses."""

from shardwave.common.redact import redact


class ShardwaveError(Exception):
    """Base class of errors that end a command, such as a damaged file or a full disk.

    The message is one line and contains the remedy. Passwords in its URLs are masked.
    """

    exit_status = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(each) if isinstance(each, str) else each for each in args))


class UsageError(ShardwaveError):
    """Wrong usage. The message names the option, its rule, the value received and the valid choices."""

    exit_status = 2


def require(holds: bool, rule: str, value: object) -> None:
    """Raise UsageError unless a rule is satisfied.

    Args:
        holds: Whether the rule is satisfied.
        rule: The rule, with the name of the option.
        value: The value received.
    """
    if not holds:
        raise UsageError(f"{rule}, got {value}")


class DamagedFile(ShardwaveError):
    """A file that this program wrote has invalid content."""


class TooManyBadInputs(ShardwaveError):
    """The build is finished, but more files were quarantined than `--max-bad-fraction` allows."""

    exit_status = 3


class BadAudio(Exception):
    """An audio file cannot be used; `str(error)` is the reason in `quarantine.jsonl`."""


class UnknownEncoding(BadAudio):
    """libsndfile cannot decode an audio file; `str(error)` names its encoding."""
