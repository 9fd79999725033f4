"""Keeps broadcasts until each was sent often enough.

Enters: encoded messages, room in packets. Leaves: messages to put into a packet.
Never: a choice of receivers; packet formats.

They are kept in the order in which they are sent, so that filling a packet costs a search for each
message that goes into it, however many wait.
"""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TypeAlias


def retransmit_limit(multiplier: int, members: int) -> int:
    """Return how often a broadcast is sent, so that it almost surely reaches all (SWIM 4.1)."""
    return multiplier * math.ceil(math.log10(members + 1))


_Rank: TypeAlias = tuple[int, int, int]
"""How often it was sent, less its length, less its number, which counts up: smallest first."""


@dataclass(slots=True)
class _Broadcast:
    key: str
    message: bytes
    number: int
    sent: int = 0

    @property
    def rank(self) -> _Rank:
        return self.sent, -len(self.message), -self.number


class BroadcastQueue:
    """Broadcasts in order: least sent first, then longest, then newest."""

    def __init__(self, count_max: int = 4096) -> None:
        """Hold at most `count_max` broadcasts (Serf's MaxQueueDepth); the most sent go first."""
        self._count_max = count_max
        self._waiting: dict[str, _Broadcast] = {}
        self._by_number: dict[int, _Broadcast] = {}
        self._order: list[_Rank] = []
        """The ranks of those that wait, sorted."""
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def put(self, key: str, message: bytes) -> None:
        """Queue a message; it replaces an older one with the same key."""
        older = self._waiting.get(key)
        if older is not None:
            self._drop(bisect_left(self._order, older.rank))
        self._numbers += 1
        self._insert(_Broadcast(key, message, self._numbers))
        if len(self._waiting) > self._count_max:
            self._drop(-1)

    def take(self, room_bytes: int, each_bytes: int, count_max: int, sends_max: int) -> list[bytes]:
        """Return messages for one packet; each is counted, and dropped after `sends_max` sends.

        Each costs its length and `each_bytes` out of `room_bytes`; at most `count_max` are taken.
        """
        taken: list[_Broadcast] = []
        place = 0
        while len(taken) < count_max and place < len(self._order):
            sent, less_length, _ = self._order[place]
            if each_bytes - less_length > room_bytes:
                # On to the first one that is short enough, of those sent as often.
                place = bisect_left(self._order, (sent, each_bytes - room_bytes), place + 1)
                continue
            room_bytes -= each_bytes - less_length
            taken.append(self._drop(place))
        for waiting in taken:
            waiting.sent += 1
            if waiting.sent < sends_max:
                self._insert(waiting)
        return [waiting.message for waiting in taken]

    def _insert(self, waiting: _Broadcast) -> None:
        self._waiting[waiting.key] = self._by_number[waiting.number] = waiting
        insort(self._order, waiting.rank)

    def _drop(self, place: int) -> _Broadcast:
        _, _, less_number = self._order.pop(place)
        waiting = self._by_number.pop(-less_number)
        del self._waiting[waiting.key]
        return waiting
