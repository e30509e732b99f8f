"""Retries of actions that fail temporarily, such as broken connections or servers that answer 503."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shardwave.common.errors import ShardwaveError

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
RETRIES = 8
PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds before the first retry (each doubles it), and the maximum
STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses of temporary failures


class TryLater(Exception):
    """An attempt failed, and another may succeed.

    Args:
        reason: Reason for messages.
        seconds: The server's `Retry-After` header.
    """

    def __init__(self, reason: str, seconds: str | None = None) -> None:
        super().__init__(reason)
        self.seconds = min(60.0, float(seconds)) if seconds and seconds.isdigit() else 0.0


def retry(
    name: object,
    action: Callable[[], T],
    passes: Callable[[BaseException], bool],
    *,
    retries: int = RETRIES,
    pause: float | None = None,
    remedy: str = "",
) -> T:
    """Call `action` until it succeeds and return its result.

    Args:
        name: File or URL for messages.
        action: Function without arguments.
        passes: Returns whether an exception is temporary; others are raised immediately.
        retries: Maximum number of calls after the first one.
        pause: Time before the first retry, in seconds; by default PAUSE. It doubles with each retry.
        remedy: End of the error message.

    Returns:
        The return value of `action`.

    Raises:
        ShardwaveError: All retries failed.
    """
    import tenacity  # every build imports this module, few retry

    wait = tenacity.wait_exponential(multiplier=PAUSE if pause is None else pause, max=LONGEST_PAUSE)

    def error_of(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def give_up(state: tenacity.RetryCallState) -> T:
        raise ShardwaveError(
            f"{name}: given up after {retries} retries ({one_line(error_of(state))}){remedy}"
        ) from None

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1),
        retry=tenacity.retry_if_exception(passes),
        wait=lambda state: max(getattr(error_of(state), "seconds", 0.0), wait(state)),
        retry_error_callback=give_up,
    )(action)


def one_line(error: BaseException | None) -> str:
    """Return the message of an exception as one line, or its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
