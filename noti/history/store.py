"""What is replicated: the last notifications, numbered, each event once, the same on every node.

Enters: committed commands, in log order. Leaves: notifications that just became visible; snapshots.
Never: I/O, clocks, randomness, settings of one node; anything in which two nodes could differ.

Why one number for each stream, its floor, is enough to show each event exactly once:

- Only one leader's proposals can commit after its own no-op has, and it reads the source from the
  floor that it sees once that no-op is applied. So it starts right above everything that was ever
  committed.
- It proposes in strict stream order, and the log keeps that order. So nothing below an applied
  event is still to come for the first time.

Together: at any point of the log, the events of a stream that were applied are exactly those at or
below its floor (sequences that were skipped can never be events, and must not come either).
Whatever comes at or below the floor was shown before and is dropped. A set of exceptions above the
floor is not needed.

Events of publishers come without an order of their own. Retries are told by their content, or by a
key (`noti.history.duplicates`); what is kept, and for how long, is decided by
`noti.history.retention`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, assert_never

from noti.errors import LevelUnsupported
from noti.history.commands import (
    AdvanceFloor,
    Expire,
    Publish,
    PublishBatch,
    PublishBatchV1,
    PublishV1,
    SetHistorySize,
    SetLimits,
    decode,
)
from noti.history.duplicates import Contents
from noti.history.levels import SUPPORTED, RaiseLevel, too_old
from noti.history.limits import HistoryLimits
from noti.history.notification import Event, Notification
from noti.history.retention import Kept
from noti.history.revocations import RevocationTable, Revoke
from noti.history.snapshot import STREAMS_MAX, SnapshotReader, StoreParts, pieces_of
from noti.history.subscription_commands import EndNode, EndSubscriber, SubscriptionBatch
from noti.history.subscriptions import SubscriptionTable

_DIGITS: Final = 16


class Store:
    """The state machine. Every method is synchronous and does all of its work or none of it."""

    def __init__(self, parts: StoreParts | None = None, supports: int = SUPPORTED) -> None:
        """Begin empty, or with what a snapshot held; `supports` is the highest level to take."""
        self._supports = supports
        self.subscriptions = SubscriptionTable()
        """Who is subscribed, on all nodes; always the same object."""
        self.revocations = RevocationTable()
        """Whose tokens are refused; always the same object."""
        self._published: Sequence[Event] = ()
        self._take(parts or StoreParts())

    @property
    def level(self) -> int:
        """Which commands all nodes of the cluster can read, see `noti.history.levels`."""
        return self._level

    @property
    def limits(self) -> HistoryLimits:
        """What is kept at most."""
        return self._retention.limits

    @property
    def first_seq(self) -> int:
        """Where the window begins, which holds everything after it; `last_seq + 1` when empty."""
        return self._retention.first_seq

    @property
    def last_seq(self) -> int:
        """The newest number ever given; 0 before the first."""
        return self._retention.last_seq

    @property
    def size_bytes(self) -> int:
        """What counts for `HistoryLimits.size_bytes`."""
        return self._retention.size_bytes

    @property
    def oldest_taken_ms(self) -> int | None:
        """When the oldest event that is kept was taken, wall time; None when none is kept."""
        oldest = self._retention.oldest
        return None if oldest is None else oldest.taken_ms

    @property
    def gone(self) -> Sequence[int]:
        """The numbers that history lost by the last command; no order is promised."""
        return [notification.seq for notification in self._retention.gone]

    @property
    def published(self) -> Sequence[Event]:
        """The events of publishers in the last command, whether or not they became visible."""
        return self._published

    def history(self) -> Sequence[Notification]:
        """Return the kept notifications, oldest first; a copy.

        Those before `first_seq`, each the last ones of one of their topics, have holes between
        them.
        """
        return tuple([kept.notification for kept in self._retention.all()])

    def with_id(self, event_id: str) -> list[Kept]:
        """Return the events with this id that history holds, oldest first; usually one at most."""
        found = map(self._retention.find, self._contents.seqs_of(event_id))
        return [kept for kept in found if kept is not None]

    def lost_through(self, topics: Iterable[str] | None) -> int:
        """Return the highest number with one of these topics that may have been lost; 0 for none.

        A reader who has everything up to a lower one has lost something. Topics are exact; None
        means all of them, or that nobody knows which.
        """
        return self._retention.lost(topics)

    def floor(self, stream: str) -> int:
        """Return the highest applied source sequence of `stream`, 0 when it is not known."""
        return self._floors.get(stream, 0)

    def id_of(self, event: Event) -> str | None:
        """Return the id under which an event that was applied just now is known.

        That of the first one with its idempotency key; None when its key had been used for other
        content, so that it was dropped.
        """
        return self._keys.id_of(event)

    def apply(self, command: bytes) -> list[Notification]:
        """Apply one committed command and return what became visible, in order.

        Raises `CommandUnknown`, `LevelUnsupported` or `MessageInvalid`, with the state untouched:
        the node must halt then, because the others may have applied it.
        """
        visible: list[Notification] = []
        decoded = decode(command)
        self._retention.take_gone()
        self._published = ()
        match decoded:
            case PublishBatch(stream, events, taken_ms):
                self._published = events
                visible = self._publish_batch(stream, events, taken_ms)
            case PublishBatchV1(stream, events):
                visible = self._publish_batch(stream, events, None)
            case Publish(events, taken_ms):
                self._published = events
                visible = self._publish(events, taken_ms)
            case PublishV1(events):
                visible = self._publish_v1(events)
            case SetLimits(limits):
                self._retention.set_limits(limits)
            case SetHistorySize(count):
                self._retention.set_limits(replace(self.limits, count=count))
            case Expire(before_ms):
                self._retention.expire(before_ms)
            case AdvanceFloor(stream, seq):
                self._advance(stream, seq)
            case SubscriptionBatch() | EndNode() | EndSubscriber() as change:
                told = self.subscriptions.apply(change)
                visible = [self._show(event, change.created_ms) for event in told]
            case Revoke() as revocation:
                self.revocations.apply(revocation)
            case RaiseLevel(level):
                self._raise_level(level)
            case other:
                assert_never(other)
        self._forget_gone()
        return visible

    def snapshot_pieces(self) -> Iterator[bytes]:
        """Return the whole state as it is now, in pieces of about 256 KiB.

        They are encoded one by one as they are asked for; what is applied meanwhile is not in them.
        Equal states give equal pieces. `StoreDecoder` reads them, also when they are cut otherwise.
        """
        return pieces_of(self.parts())

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        return b"".join(self.snapshot_pieces())

    @classmethod
    def decode(cls, snapshot: bytes) -> "Store":
        """Return a store with the state in `snapshot`; raises `MessageInvalid`."""
        decoder = StoreDecoder()
        decoder.feed(snapshot)
        return decoder.finish()

    def restore(self, other: "Store") -> None:
        """Replace the whole state by that of a store which is not used any more."""
        self._take(other.parts(), other._contents)

    def digest(self) -> str:
        """Return a short text that is equal on two nodes exactly when their states are."""
        whole = hashlib.sha256()
        for piece in self.snapshot_pieces():
            whole.update(piece)
        return whole.hexdigest()[:_DIGITS]

    def _take(self, parts: StoreParts, contents: Contents | None = None) -> None:
        self._published = ()
        # Least recently published first, so that the first is the one to forget.
        self._floors = parts.floors
        self._retention = parts.retention
        self._keys = parts.keys
        self._level = parts.level
        self.subscriptions.restore(parts.subscriptions)
        self.revocations.restore(parts.revocations)
        if contents is None:
            contents = Contents()
            for kept in parts.retention.all():
                contents.add(kept.notification)
        self._contents = contents

    def parts(self) -> StoreParts:
        """Return the state itself, not a copy."""
        return StoreParts(
            self._floors,
            self._retention,
            self._keys,
            self.subscriptions,
            self.revocations,
            self._level,
        )

    def _raise_level(self, level: int) -> None:
        if level > self._supports:
            raise LevelUnsupported(too_old(level, self._supports))
        self._level = max(self._level, level)

    def _publish_batch(
        self, stream: str, events: Sequence[Event], taken_ms: int | None
    ) -> list[Notification]:
        """Show what is above the floor; without `taken_ms` as version 0.2 did."""
        floor = self._floors.get(stream, 0)
        above: list[Event] = []
        for event in events:
            if event[0] > floor:
                floor = event[0]
                above.append(event)
        if taken_ms is None:
            visible = [self._show(event, event.created_ms) for event in above]
        else:
            visible = self._show_new(above, taken_ms)
        self._advance(stream, floor)
        return visible

    def _advance(self, stream: str, floor: int) -> None:
        if floor > self._floors.get(stream, 0):
            self._floors.pop(stream, None)
            self._floors[stream] = floor
            if len(self._floors) > STREAMS_MAX:
                del self._floors[next(iter(self._floors))]

    def _publish(self, events: Sequence[Event], taken_ms: int) -> list[Notification]:
        add = self._keys.add
        unique = [event for event in events if not event.idempotency_key or add(event)]
        return self._show_new(unique, taken_ms)

    def _publish_v1(self, events: Sequence[Event]) -> list[Notification]:
        return [
            self._show(event, event.created_ms)
            for event in events
            if not self._contents.holds_id(event.id)
        ]

    def _show_new(self, events: Sequence[Event], taken_ms: int) -> list[Notification]:
        """Show those that history does not hold."""
        visible: list[Notification] = []
        add_new, number = self._contents.add_new, self.last_seq + 1
        for event in events:
            # Made as a tuple is, without the call that names fields, in a third of the time.
            notification = tuple.__new__(Notification, (number, *event[1:8]))
            if add_new(notification):
                number += 1
                visible.append(notification)
        self._retention.extend(visible, taken_ms)
        return visible

    def _show(self, event: Event, taken_ms: int) -> Notification:
        notification = Notification(self.last_seq + 1, *event[1:8])
        self._retention.append(notification, taken_ms)
        self._contents.add(notification)
        return notification

    def _forget_gone(self) -> None:
        self._retention.trim()
        for notification in self._retention.gone:
            self._contents.remove(notification)


class StoreDecoder:
    """Reads a snapshot that comes in pieces, however they are cut.

    Raises `MessageInvalid`, or `LevelUnsupported` for a state beyond the level `supports`.
    """

    def __init__(self, supports: int = SUPPORTED) -> None:
        self._supports = supports
        self._reader = SnapshotReader(supports)

    def feed(self, data: bytes | memoryview) -> None:
        """Take what follows; about 2 ms of work for 256 KiB."""
        self._reader.feed(data)

    def finish(self) -> Store:
        """Return the store; what it derives from its state takes about 0.1 s for 100,000 events."""
        return Store(self._reader.finish(), self._supports)


def decode_store(pieces: Iterable[bytes], supports: int = SUPPORTED) -> Store:
    """Return the store that these pieces of a snapshot make; raises what `StoreDecoder` does."""
    decoder = StoreDecoder(supports)
    for piece in pieces:
        decoder.feed(piece)
    return decoder.finish()
