"""Counts to how many streams the events of late were handed.

Enters: batches of events as they are framed; whoever hands one to streams adds them to its count.
Leaves: the count of an event.
Never: work for each event, or each stream; a batch is shared by all who read the same.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EVENTS_MAX: Final = 30_000
"""Events in batches that are remembered: up to 5 MB, where each is a batch of its own. A busy hub
with a thousand audiences that see different events makes as many in seconds."""


@dataclass(slots=True, eq=False)
class Delivered:
    """What became of a batch."""

    seqs: Sequence[int]
    """The events in it, in order."""
    streams: int = 0
    """To how many it was handed."""


NOTHING: Final = Delivered(())
"""A batch without events, which is handed to nobody."""


class DeliveredBatches:
    """Those of late."""

    def __init__(self) -> None:
        self._batches: deque[Delivered] = deque()
        self._events = 0
        self._forgotten_through = 0

    def begin(self, seqs: Sequence[int], last_seq: int, left_out: Sequence[int]) -> Delivered:
        """Return what counts a batch of these events up to `last_seq`, without those left out.

        `last_seq` is the last one in it; 0 when it has none.
        """
        if not last_seq:
            return NOTHING
        if seqs[-1] > last_seq:
            seqs = seqs[: bisect_right(seqs, last_seq)]
        if left_out:
            unsent = frozenset(left_out)
            seqs = [seq for seq in seqs if seq not in unsent]
        delivered = Delivered(seqs)
        self._batches.append(delivered)
        self._events += len(seqs)
        while self._events > EVENTS_MAX:
            oldest = self._batches.popleft().seqs
            self._events -= len(oldest)
            self._forgotten_through = max(self._forgotten_through, oldest[-1])
        return delivered

    def streams_of(self, seq: int) -> tuple[int, bool]:
        """Return to how many streams an event was handed, and whether these were all."""
        streams = 0
        for delivered in self._batches:
            seqs = delivered.seqs
            if delivered.streams and seqs[0] <= seq <= seqs[-1]:
                streams += delivered.streams if seqs[bisect_left(seqs, seq)] == seq else 0
        return streams, seq > self._forgotten_through
