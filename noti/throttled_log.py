"""Log lines about what others may cause as often as they like, no louder for a flood.

Enters: what is to be logged, and about whom. Leaves: the first line about each at once, then at
most one an interval, with the number of those that were not logged in between.
Never: memory or lines without bound, however many they are; counts, which metrics keep.
"""

from collections.abc import Callable, Hashable
from typing import Final

INTERVAL_S: Final = 60.0
"""Who is broken says so again and again; an operator needs to read it once."""

KEYS_MAX: Final = 1000
"""Keys remembered. What comes with further ones within an interval, from a flood with forged
sources, counts as one more key."""

_FURTHER: Final = object()


class ThrottledLog:
    """Lines of one place in the code."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` returns monotonic seconds."""
        self._now = now
        self._logged_at: dict[Hashable, float] = {}
        """In the order of these times."""
        self._suppressed: dict[Hashable, int] = {}

    def log(
        self, write: Callable[..., object], event: str, key: Hashable = None, **fields: object
    ) -> bool:
        """Log with `write`, a method of a logger, unless `key` was logged within the interval.

        Returns whether it was logged; then with a field `suppressed` if others were not.
        """
        now = self._now()
        if key not in self._logged_at and len(self._logged_at) >= KEYS_MAX:
            oldest = next(iter(self._logged_at))
            if now - self._logged_at[oldest] >= INTERVAL_S:
                self._forget(oldest)
            else:
                key = _FURTHER
        if key in self._logged_at and now - self._logged_at[key] < INTERVAL_S:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return False
        if suppressed := self._forget(key):
            fields["suppressed"] = suppressed
        self._logged_at[key] = now
        write(event, **fields)
        return True

    def _forget(self, key: Hashable) -> int:
        """Return how many lines about it were suppressed."""
        self._logged_at.pop(key, None)
        return self._suppressed.pop(key, 0)
