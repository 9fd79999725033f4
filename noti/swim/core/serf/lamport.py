"""Lamport clocks, and what the latest of their times brought.

Enters: times in messages. Leaves: times for our own, and what is new.
Never: a clock that strangers can exhaust; more items than agreed.

Source: Lamport 1978; Serf's clocks and buffers of 512 times.
"""

from typing import Final, Generic, TypeVar

from noti.errors import MessageInvalid

AHEAD_MAX: Final = 2**24
"""A Lamport time so far above our clock is invalid: no cluster counts up to it, as each message
adds one; accepted, a few of them would exhaust the clock, and no node could refute any more."""

TIMES_MAX: Final = 512
"""Messages of so many latest times are told apart; older ones are dropped (Serf)."""

_Item = TypeVar("_Item")


class LamportClock:
    """One of a node's three clocks: of intents, of user events, of queries."""

    def __init__(self) -> None:
        self.time = 1
        """The time of our next message."""

    def tick(self) -> int:
        """Return the time of a message of ours, and move on."""
        self.time += 1
        return self.time - 1

    def is_far_behind(self, time: int) -> bool:
        """Whether a time is so far ahead that it is invalid."""
        return time > self.time + AHEAD_MAX

    def witness(self, time: int) -> None:
        """Take the time of another's message; raises `MessageInvalid` when it is far ahead."""
        if self.is_far_behind(time):
            raise MessageInvalid(f"Lamport time {time} is far ahead of this cluster's {self.time}")
        self.time = max(self.time, time + 1)


class RecentItems(Generic[_Item]):
    """The different items of the latest times, so that each is taken once."""

    def __init__(self, items_max: int) -> None:
        """Remember at most `items_max`; of more, those of the oldest times become too old."""
        self._items_max = items_max
        self._by_time: dict[int, dict[_Item, None]] = {}
        self._count = 0
        self._too_old = -1
        """Items of this time and before are too old."""

    def drop_until(self, time: int) -> None:
        """From now on, items of this time and before are too old."""
        self._too_old = max(self._too_old, time)

    def add(self, time: int, item: _Item, clock: LamportClock) -> bool:
        """Whether an item is new, and then remember it; not so what is too old for the clock."""
        if time <= max(self._too_old, clock.time - TIMES_MAX - 1):
            return False
        items = self._by_time.setdefault(time, {})
        if item in items:
            return False
        items[item] = None
        self._count += 1
        while self._count > self._items_max or len(self._by_time) > TIMES_MAX:
            oldest = min(self._by_time)
            self._count -= len(self._by_time.pop(oldest))
            self._too_old = max(self._too_old, oldest)
        return True

    def by_time(self) -> list[tuple[int, tuple[_Item, ...]]]:
        """Return what is remembered, the oldest first."""
        return [(time, tuple(items)) for time, items in sorted(self._by_time.items())]
