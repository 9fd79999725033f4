"""How long to wait before trying again.

Enters: failures, successes, how long the other side asked us to wait. Leaves: seconds.
Never: the same second for everybody; a wait without end; I/O.
"""

from random import Random
from typing import Final

WAIT_S_MAX: Final = 60.0
"""Longest wait that is granted to a server that asks for more."""


class Backoff:
    """Doubles from one failure to the next, up to a limit, with half of it left to chance."""

    def __init__(self, rng: Random, *, first_s: float = 0.1, most_s: float = 10.0) -> None:
        """The first wait is at most `first_s`, none is more than `most_s` by itself."""
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self.failures = 0
        """In a row."""

    def failed(self, retry_after_s: float | None = None) -> float:
        """Return how long to wait now, in seconds; at least `retry_after_s` (RFC 9110, 10.2.3)."""
        longest_s = min(self._most_s, self._first_s * 2.0 ** min(self.failures, 20))
        self.failures += 1
        wait_s = longest_s * self._rng.uniform(0.5, 1.0)
        if retry_after_s is None:
            return wait_s
        return min(retry_after_s, WAIT_S_MAX) + wait_s

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
