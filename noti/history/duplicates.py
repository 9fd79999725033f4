"""Recognises events that come again: by their content, and by their publishers' keys.

Enters: events, and what history gains and loses. Leaves: whether an event is a retry.
Never: I/O, clocks; anything in which two nodes could differ.

An event with the id, the topics and the data of one that history holds is that event, published
again by somebody who did not hear what became of it. The same id with other content is news: many
publishers give a resource's address as the id of each of its versions. Ids are nearly always used
once, so one entry for each is all that it takes; only an id with several contents has a table of
them, so that 100,000 versions of one resource are told apart as quickly as two.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import msgpack

from noti.history.notification import Event, Notification

KEYS_MAX: Final = 50_000
"""Idempotency keys that are remembered, whatever the limits of history: at 1,000 keyed events a
second the last 50 s, longer than anybody retries; with UUIDs for keys 13 MB."""

_Versions: TypeAlias = dict[tuple[tuple[str, ...], str], int]
"""Topics and data -> the newest number with them."""


@dataclass(slots=True)
class Contents:
    """Ids and contents of what history holds. Derived from it, so not in snapshots."""

    _by_id: dict[str, Notification | _Versions] = field(default_factory=dict, compare=False)

    def holds_id(self, event_id: str) -> bool:
        """Tell whether an event with this id is held."""
        return event_id in self._by_id

    def seqs_of(self, event_id: str) -> list[int]:
        """Return the numbers of the events with this id, one for each content, in order."""
        known = self._by_id.get(event_id)
        if known is None:
            return []
        return [known.seq] if isinstance(known, Notification) else sorted(known.values())

    def holds(self, event: Event | Notification) -> bool:
        """Tell whether an event with the same id, topics and data is held."""
        known = self._by_id.get(event.id)
        if known is None:
            return False
        if isinstance(known, Notification):
            return known.topics == event.topics and known.data == event.data
        return (event.topics, event.data) in known

    def add_new(self, notification: Notification) -> bool:
        """Add an event, unless one with the same id, topics and data is held; return whether."""
        known = self._by_id.setdefault(notification.id, notification)
        if known is notification:
            return True
        if self.holds(notification):
            return False
        self.add(notification)
        return True

    def add(self, notification: Notification) -> None:
        """History has gained an event."""
        known = self._by_id.setdefault(notification.id, notification)
        if known is notification:
            return
        content = notification.topics, notification.data
        if not isinstance(known, Notification):
            known[content] = notification.seq
        elif (known.topics, known.data) == content:
            self._by_id[notification.id] = notification
        else:
            versions = {(known.topics, known.data): known.seq, content: notification.seq}
            self._by_id[notification.id] = versions

    def remove(self, notification: Notification) -> None:
        """History has lost an event."""
        known = self._by_id[notification.id]
        if known is notification:
            del self._by_id[notification.id]
            return
        if isinstance(known, Notification):
            if known.seq == notification.seq:
                del self._by_id[notification.id]
            return
        content = notification.topics, notification.data
        if known.get(content) == notification.seq:
            del known[content]
            if not known:
                del self._by_id[notification.id]


class KeyedEvent(NamedTuple):
    """What an idempotency key stands for."""

    id: str
    """Of the event that came with it first."""
    digest: bytes
    """Of what that event says: all but its id, as nodes give a new one to each retry without."""


@dataclass(slots=True)
class IdempotencyKeys:
    """The last keys of publishers. Part of the replicated state."""

    known: OrderedDict[str, KeyedEvent] = field(default_factory=OrderedDict)
    """In the order in which they came."""

    def add(self, event: Event) -> bool:
        """Remember the key of an event, if it has one; return whether it is new, or there is none.

        An event whose key is not new must not be shown.
        """
        key = event.idempotency_key
        if not key:
            return True
        if key in self.known:
            return False
        self.known[key] = KeyedEvent(event.id, _digest(event))
        if len(self.known) > KEYS_MAX:
            self.known.popitem(last=False)
        return True

    def id_of(self, event: Event) -> str | None:
        """Return the id under which what an event says was shown, once it is applied.

        None when its key was used for something else.
        """
        known = self.known.get(event.idempotency_key) if event.idempotency_key else None
        if known is None:
            return event.id
        return known.id if known.digest == _digest(event) else None


def _digest(event: Event) -> bytes:
    content = [event.topics, event.data, event.type, event.retry_ms, event.private]
    return hashlib.blake2b(msgpack.packb(content), digest_size=16).digest()
