"""Decides how long events are kept for clients, and whose share of that is used up.

Enters: the cursors of streams. Leaves: memory that is free again, streams to be ended, and the
pressure on this node, by which the intake is slowed.
Never: I/O, clocks, closing a stream (the hub does that), a decision by the count of events.

What is older than history is kept for the slowest client, bounded by bytes. It is kept once for
all, so each client may use the whole bound, and only one that holds more than that is ended: a
client that reads is not closed for being far behind in events, or for a long pass of the hub.

Two kinds of clients are behind. A client that was never blocked since it was last in step took all
that it was sent, so that the hub itself is late: the slowest of them is the pressure. A client
whose socket was full is slow itself, or its machine is. One of them, or some, may be as slow as
they like: that is their affair, and they go when their share is used up. But when *most* clients
that read have full sockets, it is the machine (a load generator on the same processors, a full
link), and dropping them all would only make them come back. So the median of all that read counts.
Those that have taken nothing for a while do not count at all, and fewer than ten slow ones say
nothing about a machine: a few clients on an empty node must not slow a whole cluster.

Clients that follow quiet topics count as readers that are in step. So a few who follow a busy topic
too slowly, among many who do not, are not taken for a slow machine.
"""

from noti.streams.end_reason import EndReason
from noti.streams.feed import Feed
from noti.streams.open_streams import OpenStream
from noti.streams.retained import place_of
from noti.streams.sending import Sending

SLOW_CLIENTS_MIN = 10
"""Fewer full sockets say nothing about the machine."""
STOCK_SHARE = 20
"""Looking where all clients stand takes a 20th of the time at most."""
STOCK_EVERY_S = 0.2
"""But is done so often: a busy machine may have made it take long."""
FREED_AT_ONCE = 500
"""Events, 1 us each."""


class Backlog:
    """What is kept beyond history, and for whom."""

    def __init__(self, feed: Feed, sending: Sending, bytes_max: int, reads_within_s: float) -> None:
        """`bytes_max` is what one client may keep from being freed.

        A client that has been blocked for `reads_within_s` is taken for one that does not read.
        """
        self._feed = feed
        self._retained = feed.retained
        self._sending = sending
        self.bytes_max = bytes_max
        self.reads_within_s = reads_within_s
        self._needed_after = 0
        """Everybody has everything up to here."""
        self._reading_at = 0
        self._held: list[tuple[float, int]] = []
        """Cursors of streams that are about to begin, and until when they are kept."""
        self._due_at = 0.0

    @property
    def pressure(self) -> float:
        """How much of the bound is used for clients that read.

        0.0 is nothing, from 1.0 on they are closed.
        """
        return self._retained.beyond(self._reading_at) / self.bytes_max

    def due_at(self) -> float:
        """When stock should be taken; never without a backlog."""
        return self._due_at if self._retained.backlog_bytes else float("inf")

    def enter(self, cursor: int) -> None:
        """A stream begins, at this cursor: what it needs is kept from now on."""
        if (place := place_of(cursor)) >= 0:
            self._needed_after = min(self._needed_after, place)

    def hold(self, cursor: int, until: float) -> None:
        """Keep what a stream at this cursor will need when it begins, if it begins by then."""
        if (place := place_of(cursor)) >= 0:
            self._held.append((until, place))
            self.enter(place)

    def take_stock(self, now: float) -> list[tuple[OpenStream, EndReason]]:
        """Look at all cursors; return the streams whose share is used up, to be ended."""
        needed = reading = self._sending.groups.passed_seq
        for group in self._sending.groups.lagging.values():
            if group.in_step:
                needed = reading = min(needed, group.cursor)
        slow: list[int] = []
        readers = self._sending.count
        for stream in self._sending.not_in_step():
            cursor = place_of(stream.cursor)
            if cursor < 0:
                continue
            needed = min(needed, cursor)
            if not stream.slow:
                reading = min(reading, cursor)
            elif stream.is_blocked and stream.blocked_at < now - self.reads_within_s:
                readers -= 1
            else:
                slow.append(cursor)
        if len(slow) >= SLOW_CLIENTS_MIN and len(slow) > readers // 2:
            slow.sort()
            reading = min(reading, slow[readers // 2])
        self._needed_after, self._reading_at = self._first_held(needed, now), reading
        return [
            (stream, EndReason.BEHIND if stream.slow else EndReason.OVERRUN)
            for stream in self._overdrawn()
        ]

    def took_stock(self, began: float, now: float) -> None:
        """Note how long that took, so that it is not done too often."""
        self._due_at = now + min(STOCK_SHARE * (now - began), STOCK_EVERY_S)

    def free(self) -> bool:
        """Free some of what nobody needs any more; return whether there is more of it."""
        return self._feed.release(self._needed_after, FREED_AT_ONCE)

    def free_all(self, now: float) -> None:
        """Free all that is not history: there are no clients, but perhaps some about to come."""
        self._reading_at = self._retained.newest_seq
        self._needed_after = self._first_held(self._reading_at, now)
        self._feed.release(self._needed_after)

    def _overdrawn(self) -> list[OpenStream]:
        if not self._is_overdrawn(self._needed_after):
            return []
        alone = self._sending.not_in_step()
        overdrawn = [stream for stream in alone if self._is_overdrawn(stream.cursor)]
        for group in self._sending.groups.lagging.values():
            if self._is_overdrawn(group.cursor):
                overdrawn += group.in_step.values()
        return overdrawn

    def _first_held(self, needed: int, now: float) -> int:
        """Return the first of these cursors; forget those that are too old, or cost too much."""
        self._held = [
            (until, cursor)
            for until, cursor in self._held
            if until > now and not self._is_overdrawn(cursor)
        ]
        return min([needed, *(cursor for _, cursor in self._held)])

    def _is_overdrawn(self, cursor: int) -> bool:
        return self._retained.beyond(cursor) > self.bytes_max
