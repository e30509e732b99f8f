"""Errors that end a command with one clear line, and their exit statuses (DESIGN §2)."""

from shardwave.common.redact import redact


class ShardwaveError(Exception):
    """What the arguments alone could not show: a bad file, a full disk.

    The message is one line that says what to do; passwords in URLs that it holds are masked.
    """

    exit_status = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(each) if isinstance(each, str) else each for each in args))


class UsageError(ShardwaveError):
    """Wrong usage: names the option, its rule, the value received and the valid choices."""

    exit_status = 2


def require(holds: bool, rule: str, value: object) -> None:
    """Raise UsageError with the rule and the value received unless it holds."""
    if not holds:
        raise UsageError(f"{rule}, got {value}")


class DamagedFile(ShardwaveError):
    """A file that this program wrote does not hold what it should."""


class TooManyBadInputs(ShardwaveError):
    """The work is finished, but more inputs were set aside than `--max-bad-fraction` allows."""

    exit_status = 3


class BadAudio(Exception):
    """A file that is not usable audio; `str(error)` is the reason recorded in `quarantine.jsonl`."""


class UnknownEncoding(BadAudio):
    """Audio that libsndfile does not decode; `str(error)` names its encoding."""
