"""Errors that end a command with one clear line, and their exit statuses (DESIGN §2)."""


class ShardwaveError(Exception):
    """What the arguments alone could not show: a bad file, a full disk. The message is one line that says what to do."""

    exit_status = 1


class UsageError(ShardwaveError):
    """Wrong usage: names the option, its rule, the value received and the valid choices."""

    exit_status = 2


class DamagedFile(ShardwaveError):
    """A file that this program wrote does not hold what it should."""


class TooManyBadInputs(ShardwaveError):
    """The work is finished, but more inputs were set aside than `--max-bad-fraction` allows."""

    exit_status = 3


class BadAudio(Exception):
    """A file that is not usable audio; `str(error)` is the reason recorded in `quarantine.jsonl`."""


class UnknownEncoding(BadAudio):
    """Audio that libsndfile does not decode; `str(error)` names its encoding."""
