"""How long to wait before trying again.

Enters: failures, successes, how long the other side asked us to wait. Leaves: seconds.
Never: the same second for everybody; I/O.
"""

from random import Random


class Backoff:
    """Doubles from one failure to the next, up to a limit, with half of it left to chance."""

    def __init__(self, rng: Random, *, first_s: float = 0.1, most_s: float = 10.0) -> None:
        """No wait is more than `most_s` by itself."""
        self._rng = rng
        self.first_s = first_s
        """Longest first wait."""
        self._most_s = most_s
        self.failures = 0
        """In a row."""

    def failed(self, retry_after_s: float = 0.0) -> float:
        """Return how long to wait now, in seconds.

        When the other side asked for `retry_after_s` (RFC 9110, 10.2.3) it is at least a quarter
        longer: it asked everybody, and they had better not come back in one moment.
        """
        longest_s = min(self._most_s, self.first_s * 2.0 ** min(self.failures, 20))
        self.failures += 1
        return retry_after_s + max(longest_s, retry_after_s / 2) * self._rng.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
