"""Interface of a backend to a pool of worker processes."""

from __future__ import annotations

from shardwave.search.trial import Assignment, Trial


class Driver:
    """Interface of a backend to a `WorkerPool`; selects the trials and decides when to stop them.

    Attributes:
        poll: Maximum interval between calls of `tick`, in seconds; None: no maximum.
    """

    poll: float | None = None

    def ask(self) -> Assignment | None:
        """Return the next trial, or None if no trial is available now."""
        raise NotImplementedError

    def expects_more(self) -> bool:
        """Return whether `ask` may return a trial later, after it has returned None."""
        return False

    def tick(self) -> None:
        """Do periodic work; called before each wait for messages."""

    def report(self, trial: Trial) -> bool:
        """Process the last value of a trial, and return whether to stop the trial."""
        return False

    def end(self, trial: Trial) -> None:
        """Process the end of a trial, before it is written to the log; its state is set."""
