"""One way of trying again what fails for a while: connections that break, servers and stores that answer 503."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shardwave.common.errors import ShardwaveError

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
RETRIES = 8
PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds before the first retry, doubled for each of the others, and at most
STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses worth another attempt


class TryLater(Exception):
    """An attempt failed in a way that another may not; `seconds` is how long the server asks to wait."""

    def __init__(self, reason: str, seconds: str | None = None):
        super().__init__(reason)
        self.seconds = min(60.0, float(seconds)) if seconds and seconds.isdigit() else 0.0


def retry(name: object, action: Callable[[], T], passes: Callable[[BaseException], bool], *, retries: int = RETRIES,
          pause: float | None = None, remedy: str = "") -> T:  # fmt: skip
    """Call `action` until it succeeds and return its result.

    Args:
        name: The file or URL, for messages.
        action: Called without arguments.
        passes: Whether an exception may pass; others are raised at once.
        retries: Calls after the first one.
        pause: Seconds before the first retry; None: PAUSE.
        remedy: Ends the message.

    Raises:
        ShardwaveError: All retries failed.
    """
    import tenacity  # every build imports this module, few retry

    wait = tenacity.wait_exponential(multiplier=PAUSE if pause is None else pause, max=LONGEST_PAUSE)

    def error_of(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def give_up(state: tenacity.RetryCallState) -> T:
        raise ShardwaveError(f"{name}: given up after {retries} retries ({one_line(error_of(state))}){remedy}") from None

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1),
        retry=tenacity.retry_if_exception(passes),
        wait=lambda state: max(getattr(error_of(state), "seconds", 0.0), wait(state)),
        retry_error_callback=give_up,
    )(action)


def one_line(error: BaseException | None) -> str:
    """What an exception says, as one line."""
    return " ".join(str(error).split()) or type(error).__name__
