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
below its floor (sequences that were skipped were terminated as invalid, and must not come either).
Whatever comes at or below the floor was shown before and is dropped. A set of exceptions above the
floor is not needed.

Events of publishers come without an order of their own. One whose id history holds already is
dropped, so a publisher that does not know what became of an event may publish it again.
"""

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, assert_never

import msgpack

from noti.errors import MessageInvalid
from noti.history.commands import (
    Expire,
    Publish,
    PublishBatch,
    PublishBatchV1,
    PublishV1,
    SetHistorySize,
    SetLimits,
    decode,
    is_content,
    is_integer,
    is_topics,
    unpack,
)
from noti.history.notification import Event, Notification
from noti.history.subscription_commands import EndNode, EndSubscriber, SubscriptionBatch
from noti.history.subscriptions import SubscriptionTable

HISTORY_SIZE_DEFAULT: Final = 1000
"""Notifications kept until the first `SetLimits`; the same constant on every node, never a
setting."""

STREAMS_MAX: Final = 64
"""Stream identities whose floor is remembered. A stream that is deleted and made again is a new
identity; 64 such events outlast any redelivery, and a floor costs about 100 bytes."""

_SNAPSHOT_VERSION: Final = 2


class Store:
    """The state machine. Every method is synchronous and does all of its work or none of it."""

    def __init__(self) -> None:
        self._history_size = HISTORY_SIZE_DEFAULT
        self._last_seq = 0
        # Least recently published first, so that the first is the one to forget.
        self._floors: dict[str, int] = {}
        self._history: deque[Notification] = deque()
        self._newest_by_id: dict[str, int] = {}
        """Id in history -> the newest `seq` with it. Derived from history, so not in snapshots."""
        self.subscriptions = SubscriptionTable()
        """Who is subscribed, on all nodes; always the same object."""

    @property
    def history_size(self) -> int:
        """How many notifications are kept at most."""
        return self._history_size

    @property
    def first_seq(self) -> int:
        """The oldest number still in history; `last_seq + 1` when history is empty."""
        return self._last_seq - len(self._history) + 1

    @property
    def last_seq(self) -> int:
        """The newest number ever given; 0 before the first."""
        return self._last_seq

    def history(self) -> Sequence[Notification]:
        """Return the remembered notifications, oldest first; a copy."""
        return tuple(self._history)

    def floor(self, stream: str) -> int:
        """Return the highest applied source sequence of `stream`, 0 when it is not known."""
        return self._floors.get(stream, 0)

    def apply(self, command: bytes) -> list[Notification]:
        """Apply one committed command and return what became visible, in order.

        Raises `CommandUnknown` or `MessageInvalid`, with the state untouched: the node must halt
        then, because the others may have applied it.
        """
        match decode(command):
            case PublishBatch() | PublishBatchV1() as batch:
                return self._publish_batch(batch)
            case Publish(events) | PublishV1(events):
                return self._publish(events)
            case SetLimits(limits):
                self._history_size = limits.count
                self._evict()
                return []
            case SetHistorySize(count):
                self._history_size = count
                self._evict()
                return []
            case Expire():
                return []
            case SubscriptionBatch() | EndNode() | EndSubscriber() as change:
                return self._tell(self.subscriptions.apply(change))
            case other:
                assert_never(other)

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        packed: bytes = msgpack.packb(
            [
                _SNAPSHOT_VERSION,
                self._history_size,
                self._last_seq,
                [[stream, floor] for stream, floor in self._floors.items()],
                [[n.id, list(n.topics), *n[3:]] for n in self._history],
                self.subscriptions.fields(),
            ]
        )
        return packed

    @classmethod
    def decode(cls, snapshot: bytes) -> "Store":
        """Return a store with the state in `snapshot`; raises `MessageInvalid`."""
        store = cls()
        match unpack(snapshot):
            case [int(version), *_] if version not in (1, _SNAPSHOT_VERSION):
                raise MessageInvalid(
                    f"snapshot version {version} is not {_SNAPSHOT_VERSION}: upgrade this node"
                )
            case [int(), int(size), int(last_seq), [*floors], [*history], *subscriptions] if (
                is_integer(size, minimum=1)
                and is_integer(last_seq)
                and len(history) <= min(size, last_seq)
                and len(floors) <= STREAMS_MAX
                and len(subscriptions) <= 1
            ):
                first_seq = last_seq - len(history) + 1
                store._history_size, store._last_seq = size, last_seq
                store._floors = dict(_floor(fields) for fields in floors)
                store._history = deque(
                    _notification(seq, fields) for seq, fields in enumerate(history, first_seq)
                )
                for nodes in subscriptions:  # version 1 knew of none
                    store.subscriptions = SubscriptionTable.of(nodes)
            case _:
                raise MessageInvalid("a snapshot of the store has the wrong fields")
        store._newest_by_id = {notification.id: notification.seq for notification in store._history}
        return store

    def restore(self, other: "Store") -> None:
        """Replace the whole state by that of a store which is not used any more."""
        self._history_size, self._last_seq = other._history_size, other._last_seq
        self._floors, self._history = other._floors, other._history
        self._newest_by_id = other._newest_by_id
        self.subscriptions.restore(other.subscriptions)

    def digest(self) -> str:
        """Return a short text that is equal on two nodes exactly when their states are."""
        return hashlib.sha256(self.snapshot()).hexdigest()[:16]

    def _publish_batch(self, batch: PublishBatch | PublishBatchV1) -> list[Notification]:
        floor = self._floors.get(batch.stream, 0)
        visible: list[Notification] = []
        for event in batch.events:
            if event.source_seq > floor:
                floor = event.source_seq
                visible.append(self._show(event))
        if visible:
            self._floors.pop(batch.stream, None)
            self._floors[batch.stream] = floor
            if len(self._floors) > STREAMS_MAX:
                del self._floors[next(iter(self._floors))]
            self._evict()
        return visible

    def _publish(self, events: Sequence[Event]) -> list[Notification]:
        visible = [self._show(event) for event in events if event.id not in self._newest_by_id]
        self._evict()
        return visible

    def _tell(self, events: Sequence[Event]) -> list[Notification]:
        visible = [self._show(event) for event in events]
        self._evict()
        return visible

    def _show(self, event: Event) -> Notification:
        self._last_seq += 1
        seq = self._last_seq
        notification = Notification(seq, *event[1:8])
        self._history.append(notification)
        self._newest_by_id[event.id] = seq
        return notification

    def _evict(self) -> None:
        while len(self._history) > self._history_size:
            oldest = self._history.popleft()
            if self._newest_by_id[oldest.id] == oldest.seq:
                del self._newest_by_id[oldest.id]


def _floor(fields: object) -> tuple[str, int]:
    match fields:
        case [str(stream), int(floor)] if is_integer(floor, minimum=1):
            return stream, floor
        case _:
            raise MessageInvalid("a floor in a snapshot has the wrong fields")


def _notification(seq: int, fields: Any) -> Notification:
    match fields:
        case [str(id_), topics, str(data), int(created_ms)] if is_topics(topics) and is_integer(
            created_ms
        ):
            return Notification(seq, id_, tuple(topics), data, created_ms)
        case [id_, topics, *others] if is_content(fields):
            return Notification(seq, id_, tuple(topics), *others)
        case _:
            raise MessageInvalid("a notification in a snapshot has the wrong fields")
