"""Keeps broadcasts until each was sent often enough.

Enters: encoded messages, room in packets. Leaves: messages to put into a packet.
Never: a choice of receivers; packet formats.
"""

import math
from dataclasses import dataclass


def retransmit_limit(multiplier: int, members: int) -> int:
    """Return how often a broadcast is sent, so that it almost surely reaches all (SWIM 4.1)."""
    return multiplier * math.ceil(math.log10(members + 1))


@dataclass(slots=True)
class _Broadcast:
    message: bytes
    number: int
    """Counts up with each broadcast: larger is newer."""
    sent: int = 0


class BroadcastQueue:
    """Broadcasts in order: least sent first, then longest, then newest."""

    def __init__(self, count_max: int = 4096) -> None:
        """Hold at most `count_max` broadcasts (Serf's MaxQueueDepth); the most sent go first."""
        self._count_max = count_max
        self._waiting: dict[str, _Broadcast] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def put(self, key: str, message: bytes) -> None:
        """Queue a message; it replaces an older one with the same key."""
        self._numbers += 1
        self._waiting[key] = _Broadcast(message, self._numbers)
        if len(self._waiting) > self._count_max:
            del self._waiting[max(self._waiting, key=lambda key: _rank(self._waiting[key]))]

    def take(self, room_bytes: int, each_bytes: int, count_max: int, sends_max: int) -> list[bytes]:
        """Return messages for one packet; each is counted, and dropped after `sends_max` sends.

        Each costs its length and `each_bytes` out of `room_bytes`; at most `count_max` are taken.
        """
        taken: list[bytes] = []
        for key, waiting in sorted(self._waiting.items(), key=lambda item: _rank(item[1])):
            cost = len(waiting.message) + each_bytes
            if len(taken) < count_max and cost <= room_bytes:
                room_bytes -= cost
                waiting.sent += 1
                taken.append(waiting.message)
                if waiting.sent >= sends_max:
                    del self._waiting[key]
        return taken


def _rank(each: _Broadcast) -> tuple[int, int, int]:
    return each.sent, -len(each.message), -each.number
