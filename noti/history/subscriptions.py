"""The replicated table of who is subscribed, on all nodes together.

Enters: committed commands about subscriptions, in log order. Leaves: events that tell of each
subscription which was created or terminated, all of them private; the subscribers, in an order that
is the same on every node.
Never: I/O, clocks, chance, settings of one node; a subscription of a node that is not in the life
in which it announced it.

The table is bounded by constants, as all nodes must agree on what did not fit. A subscriber that
does not fit is left out whole, and nothing is told of it: its stream goes on.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, assert_never

from noti.errors import MessageInvalid
from noti.history.notification import Event
from noti.history.subscriber import OWN_TYPE, Subscriber, address, document
from noti.history.subscription_commands import (
    EndNode,
    EndSubscriber,
    SubscriptionBatch,
    SubscriptionCommand,
    subscriber_fields,
    subscriber_of,
)

SUBSCRIPTIONS_MAX: Final = 250_000
"""In the table: five nodes with the default `--sse-clients-max`, of one topic each."""
TABLE_BYTES_MAX: Final = 128 * 1024 * 1024
"""What they may take, with their payloads; half of the bytes that history may hold."""
NODES_MAX: Final = 1024
"""Nodes in the table; far more than a cluster has. Those that go are removed."""
ENDED_AT_ONCE: Final = 250
"""After so many subscriptions a command that ends a node leaves the rest to the next one, as each
is an event to show, and other tasks of a node want a turn."""
_ENDING: Final = 0
"""The last batch of a node that is being ended."""


@dataclass(slots=True)
class _AnnouncedNode:
    """What one node has announced."""

    life: str
    number: int
    """Of its last batch."""
    subscribers: dict[str, Subscriber] = field(default_factory=dict)
    """In the order of their coming."""


class SubscriptionTable:
    """Part of the state machine. Every method does all of its work or none of it."""

    def __init__(self) -> None:
        self._nodes: dict[str, _AnnouncedNode] = {}
        self._node_of: dict[str, str] = {}
        """Subscriber -> its node. Derived, so not in snapshots."""
        self.count = 0
        """Subscriptions in the table."""
        self.size_bytes = 0
        """What they take, about."""
        self.told = 0
        """Events that were told of subscriptions since this node began to apply; no state."""
        self._disconnected: list[str] = []
        """Told to nobody yet; no state."""

    def __eq__(self, other: object) -> bool:
        """Whether another table is in the same state."""
        return isinstance(other, SubscriptionTable) and self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, subscriber: str) -> bool:
        """Whether a subscriber is in the table, by its id."""
        return subscriber in self._node_of

    def subscribers(self) -> Iterator[Subscriber]:
        """Yield all of them, in an order that is the same on every node."""
        for node in self._nodes.values():
            yield from node.subscribers.values()

    def find(self, subscriber: str) -> Subscriber | None:
        """Return the subscriber with this id, if it is in the table."""
        node_id = self._node_of.get(subscriber)
        return None if node_id is None else self._nodes[node_id].subscribers[subscriber]

    def lives(self) -> dict[str, str]:
        """Return the life in which each node is that has announced anything, by its id."""
        return {node_id: node.life for node_id, node in self._nodes.items()}

    def last_batch(self, node_id: str) -> tuple[str, int] | None:
        """Return the life of a node, and the number of its last batch; 0 while it is ended."""
        node = self._nodes.get(node_id)
        return None if node is None else (node.life, node.number)

    def take_disconnected(self) -> list[str]:
        """Return the subscribers whose streams are to end, each once; in the table they are not."""
        taken, self._disconnected = self._disconnected, []
        return taken

    def apply(self, command: SubscriptionCommand) -> list[Event]:
        """Carry out a committed command; return what is to be told of it, in order."""
        told = self._carry_out(command)
        self.told += len(told)
        return told

    def _carry_out(self, command: SubscriptionCommand) -> list[Event]:
        match command:
            case SubscriptionBatch():
                return self._take(command)
            case EndNode(node_id, life, created_ms):
                return self._end_node(node_id, life, created_ms)
            case EndSubscriber(subscriber, created_ms):
                home = self._node_of.get(subscriber)
                if home is None:
                    return []
                self._disconnected.append(subscriber)
                return self._close(self._nodes[home], subscriber, created_ms)
            case _:
                assert_never(command)

    def _take(self, batch: SubscriptionBatch) -> list[Event]:
        node = self._nodes.get(batch.node_id)
        if batch.number == 1 and node is None and len(self._nodes) < NODES_MAX:
            node = self._nodes[batch.node_id] = _AnnouncedNode(batch.life, 1)
        elif (
            batch.number > 1
            and node is not None
            and (batch.life, batch.number) == (node.life, node.number + 1)
        ):
            node.number = batch.number
        else:
            return []  # of a life that is over, or a copy
        told: list[Event] = []
        for subscriber in batch.closed:
            if subscriber in node.subscribers:
                told += self._close(node, subscriber, batch.created_ms)
        for opened in batch.opened:
            told += self._open(batch.node_id, node, opened, batch.created_ms)
        return told

    def _open(
        self, node_id: str, node: _AnnouncedNode, subscriber: Subscriber, created_ms: int
    ) -> list[Event]:
        size_bytes = subscriber.size_bytes
        if (
            subscriber.id in self._node_of
            or self.count + len(subscriber.subscriptions) > SUBSCRIPTIONS_MAX
            or self.size_bytes + size_bytes > TABLE_BYTES_MAX
        ):
            return []
        self._add(node_id, node, subscriber)
        return _told(node.life, subscriber, created_ms, active=True)

    def _add(self, node_id: str, node: _AnnouncedNode, subscriber: Subscriber) -> None:
        node.subscribers[subscriber.id] = subscriber
        self._node_of[subscriber.id] = node_id
        self.count += len(subscriber.subscriptions)
        self.size_bytes += subscriber.size_bytes

    def _close(self, node: _AnnouncedNode, subscriber: str, created_ms: int) -> list[Event]:
        closed = node.subscribers.pop(subscriber)
        del self._node_of[subscriber]
        self.count -= len(closed.subscriptions)
        self.size_bytes -= closed.size_bytes
        return _told(node.life, closed, created_ms, active=False)

    def _end_node(self, node_id: str, life: str, created_ms: int) -> list[Event]:
        node = self._nodes.get(node_id)
        if node is None or node.life != life:
            return []
        node.number = _ENDING
        told: list[Event] = []
        while node.subscribers and len(told) < ENDED_AT_ONCE:
            told += self._close(node, next(iter(node.subscribers)), created_ms)
        if not node.subscribers:
            del self._nodes[node_id]
        return told

    def _state(self) -> tuple[object, ...]:
        return self._nodes, self._node_of, self.count, self.size_bytes

    # --- snapshots --------------------------------------------------------------------------------

    def fields(self) -> Iterator[list[object]]:
        """Return what stands for the table as it is now in snapshots: each node, then its own.

        They are made one by one as they are asked for.
        """
        return _fields_of(
            [
                (node_id, node.life, node.number, tuple(node.subscribers.values()))
                for node_id, node in self._nodes.items()
            ]
        )

    def add_fields(self, fields: object) -> None:
        """Add to a table what `fields` of another one returned next; raises `MessageInvalid`."""
        match fields:
            case [str(node_id), str(life), number] if (
                type(number) is int
                and number >= _ENDING
                and node_id not in self._nodes
                and len(self._nodes) < NODES_MAX
            ):
                self._nodes[node_id] = _AnnouncedNode(life, number)
            case [_, int(), _] if self._nodes:
                subscriber, node_id = subscriber_of(fields), next(reversed(self._nodes))
                if subscriber.id in self._node_of:
                    raise MessageInvalid("a subscriber is in a snapshot twice")
                self._add(node_id, self._nodes[node_id], subscriber)
                if self.count > SUBSCRIPTIONS_MAX or self.size_bytes > TABLE_BYTES_MAX:
                    raise MessageInvalid("a snapshot holds more subscriptions than there may be")
            case _:
                raise MessageInvalid("subscriptions in a snapshot have wrong fields")

    def restore(self, other: "SubscriptionTable") -> None:
        """Replace the whole state by that of a table which is not used any more."""
        self._nodes, self._node_of = other._nodes, other._node_of
        self.count, self.size_bytes = other.count, other.size_bytes


def _fields_of(
    nodes: Iterable[tuple[str, str, int, tuple[Subscriber, ...]]],
) -> Iterator[list[object]]:
    for node_id, life, number, subscribers in nodes:
        yield [node_id, life, number]
        yield from map(subscriber_fields, subscribers)


def _told(life: str, subscriber: Subscriber, created_ms: int, *, active: bool) -> list[Event]:
    told = []
    for subscription in subscriber.subscriptions:
        topic = address(subscriber, subscription)
        told.append(
            Event(
                source_seq=0,
                id=_event_id(f"{life} {active} {topic}"),
                topics=(topic,),
                data=document(subscriber, subscription, active=active),
                created_ms=created_ms,
                type=OWN_TYPE if subscriber.version == 1 else "",
                private=True,
            )
        )
    return told


def _event_id(text: str) -> str:
    """Return an id that is the same on every node: a UUIDv8 (RFC 9562, 5.8) of a digest.

    The text is told once: a subscriber comes and goes once in a life of its node.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return (
        f"urn:uuid:{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-{variant}{digest[17:20]}"
        f"-{digest[20:32]}"
    )
