"""The commands that change who is subscribed, and their fields in the log.

Enters: commands to encode; fields that msgpack found. Leaves: fields; commands, fully checked.
Never: judges what a command comes to, which the table does; I/O, clocks.

Each node numbers its batches 1, 2, 3, … within one life, and the table takes each number once. So a
node repeats a batch for as long as it does not know what became of it, and a copy that comes late
changes nothing. Number 1 begins a life, if the node is not in the table: what it announced in
another life has to be ended before.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeGuard, assert_never

from noti.errors import MessageInvalid
from noti.history.selectors import SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber

SUBSCRIPTION_BATCH: Final = 20
END_NODE: Final = 21
END_SUBSCRIBER: Final = 22
SUBSCRIPTION_KINDS: Final = frozenset({SUBSCRIPTION_BATCH, END_NODE, END_SUBSCRIBER})

PAYLOAD_BYTES_MAX: Final = 4096
"""Longest payload: what a token can carry in a header of customary size, with the rest of it."""

BATCH_SUBSCRIBERS_MAX: Final = 1000
"""In one command, opened and closed each: what is shown for it is one turn of every node's loop."""

_INTEGER_MAX: Final = 2**63 - 1
_ID: Final = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Numbers of their own, as a name may change and what stands in logs may not.
_KINDS: Final = {
    SelectorKind.EXACT: 0,
    SelectorKind.TEMPLATE: 1,
    SelectorKind.URL_PATTERN: 2,
    SelectorKind.ALL: 3,
}
_BY_NUMBER: Final = {number: kind for kind, number in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class SubscriptionBatch:
    """Streams that a node opened and closed since its last batch."""

    node_id: str
    life: str
    """Which start of the node, or which beginning anew, this belongs to."""
    number: int
    """1 for the first batch of a life."""
    created_ms: int
    """Wall time in milliseconds since 1970."""
    opened: tuple[Subscriber, ...]
    closed: tuple[str, ...]
    """Ids of subscribers; those that are not in the table are passed over."""


@dataclass(frozen=True, slots=True)
class EndNode:
    """Subscriptions of a node end, if it is still in this life, and the life is over.

    One command ends a part of many; it is repeated until the node is not in the table any more.
    """

    node_id: str
    life: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class EndSubscriber:
    """A subscriber is to be disconnected, wherever it is."""

    subscriber: str
    created_ms: int


SubscriptionCommand: TypeAlias = SubscriptionBatch | EndNode | EndSubscriber


def fields_of(command: SubscriptionCommand) -> list[object]:
    """Return what stands for a command in the log, its kind first."""
    match command:
        case SubscriptionBatch(node_id, life, number, created_ms, opened, closed):
            subscribers = [subscriber_fields(subscriber) for subscriber in opened]
            return [
                SUBSCRIPTION_BATCH, node_id, life, number, created_ms, subscribers, list(closed)
            ]  # fmt: skip
        case EndNode(node_id, life, created_ms):
            return [END_NODE, node_id, life, created_ms]
        case EndSubscriber(subscriber, created_ms):
            return [END_SUBSCRIBER, subscriber, created_ms]
        case _:
            assert_never(command)


def command_of(fields: list[object]) -> SubscriptionCommand:
    """Return the command with these fields, whose kind is one of `SUBSCRIPTION_KINDS`.

    Raises `MessageInvalid`.
    """
    match fields:
        case [20, str(node_id), str(life), number, created_ms, [*opened], [*closed]] if (
            _is_integer(number, minimum=1)
            and _is_integer(created_ms)
            and len(opened) <= BATCH_SUBSCRIBERS_MAX
            and len(closed) <= BATCH_SUBSCRIBERS_MAX
        ):
            return SubscriptionBatch(
                node_id,
                life,
                number,
                created_ms,
                tuple([subscriber_of(one) for one in opened]),
                tuple([_id(one) for one in closed]),
            )
        case [21, str(node_id), str(life), created_ms] if _is_integer(created_ms):
            return EndNode(node_id, life, created_ms)
        case [22, subscriber, created_ms] if _is_integer(created_ms):
            return EndSubscriber(_id(subscriber), created_ms)
        case _:
            raise MessageInvalid("a command about subscriptions does not have the fields it needs")


def subscriber_fields(subscriber: Subscriber) -> list[object]:
    """Return what stands for a subscriber in logs and snapshots."""
    subscriptions = [[_KINDS[one.kind], one.text, one.payload] for one in subscriber.subscriptions]
    return [subscriber.id, subscriber.version, subscriptions]


def subscriber_of(fields: object) -> Subscriber:
    """Return the subscriber with these fields; raises `MessageInvalid`."""
    match fields:
        case [id_, version, [_, *_] as subscriptions] if type(version) is int and version in (0, 1):
            return Subscriber(_id(id_), version, tuple([_subscription(s) for s in subscriptions]))
        case _:
            raise MessageInvalid("a subscriber has the wrong fields")


def is_subscriber_id(text: object) -> TypeGuard[str]:
    """Return whether a text is of the form that subscribers' ids have."""
    return type(text) is str and _ID.fullmatch(text) is not None


def is_payload(text: str) -> bool:
    """Return whether a text can be a payload: JSON that is not too long."""
    try:
        json.loads(text)
        return len(text.encode()) <= PAYLOAD_BYTES_MAX
    except (ValueError, RecursionError):
        return False


def _subscription(fields: object) -> ActiveSubscription:
    match fields:
        case [int(kind), str(text), str(payload)] if (
            kind in _BY_NUMBER and type(kind) is int and (not payload or is_payload(payload))
        ):
            return ActiveSubscription(_BY_NUMBER[kind], text, payload)
        case _:
            raise MessageInvalid("a subscription has the wrong fields")


def _id(text: object) -> str:
    if not is_subscriber_id(text):
        raise MessageInvalid("a subscriber's id is no UUID")
    return text


def _is_integer(value: object, *, minimum: int = 0) -> TypeGuard[int]:
    return type(value) is int and minimum <= value <= _INTEGER_MAX
