"""Passes user events on to all members, each once.

Enters: events from members, and the operator's. Leaves: broadcasts, and what is new, for the log.
Never: use of an event; one from before this node knew its cluster.

A real agent hands events to its operator's handlers. A node of noti has none, but agents behind it
may have them.
"""

import hashlib
from typing import Final

from noti.swim.core.events import UserEventReceived
from noti.swim.core.outbox import Outbox, UserQueue
from noti.swim.core.serf.lamport import LamportClock, RecentItems
from noti.swim.core.serf.messages import UserEvent, encode_serf, shown

_EVENTS_MAX: Final = 512
"""Events remembered, to take each once and to tell newcomers; each is a few hundred bytes."""


class UserEvents:
    """One node's user events."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.clock = LamportClock()
        self._recent: RecentItems[tuple[bytes, bytes]] = RecentItems(_EVENTS_MAX)

    def send(self, name: bytes, payload: bytes, *, coalesce: bool) -> None:
        """Tell all members of an event."""
        event = UserEvent(self.clock.tick(), name, payload, coalesce)
        self._recent.add(event.time, (name, payload), self.clock)
        self._broadcast(encode_serf(event))

    def receive(self, event: UserEvent, payload: bytes) -> None:
        """Take an event and the message that it came in; raises `MessageInvalid`."""
        if self._is_new(event):
            self._broadcast(payload)

    def merge(self, time: int, events: tuple[UserEvent, ...], *, ignore_old: bool) -> None:
        """Take a peer's clock and events, or drop these, of before we came.

        Raises `MessageInvalid`.
        """
        self.clock.witness(max(0, time - 1))
        if ignore_old:
            self._recent.drop_until(time - 1)
        for event in events:
            if not self.clock.is_far_behind(event.time):
                self._is_new(event)

    def recent(self) -> tuple[UserEvent, ...]:
        """Return the latest events, for a state."""
        return tuple(
            UserEvent(time, name, payload)
            for time, items in self._recent.by_time()
            for name, payload in items
        )

    def _is_new(self, event: UserEvent) -> bool:
        self.clock.witness(event.time)
        if not self._recent.add(event.time, (event.name, event.payload), self.clock):
            return False
        self._outbox.emit(UserEventReceived(shown(event.name), len(event.payload)))
        return True

    def _broadcast(self, payload: bytes) -> None:
        key = hashlib.blake2b(payload, digest_size=16).hexdigest()
        self._outbox.broadcast_user(key, payload, UserQueue.EVENTS)
