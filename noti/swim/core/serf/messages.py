"""Serf's own messages, which travel in memberlist's user messages.

Enters: messages, or payloads from anywhere. Leaves: payloads, or messages with every field checked.
Never: any exception but `MessageInvalid` for bytes from outside; the parts of a full state that are
lists of members, which `states` has.

A payload is a type byte and a map, in the dialect of `encoding`. Source: Serf delegate protocol 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias, assert_never

import msgpack

from noti.errors import MessageInvalid
from noti.swim.core.encoding import MessageFields, pack_ip, raw_of, text_of, unpack, unpack_prefix
from noti.swim.core.messages import Address

EVENT_BYTES_MAX = 512
"""Serf's UserEventSizeLimit."""

QUERY_BYTES_MAX = 1024
"""Serf's QuerySizeLimit."""

RESPONSE_BYTES_MAX = 1024
"""Serf's QueryResponseSizeLimit."""

TIME_MAX = 2**62
"""Lamport times are 64 bits; this leaves room above."""

_NANOSECONDS = 1_000_000_000
_TIMEOUT_NS_MAX = 2**63 - 1


class SerfType(IntEnum):
    """The first byte of a payload."""

    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    EVENT = 3
    QUERY = 4
    QUERY_RESPONSE = 5
    CONFLICT_RESPONSE = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


class QueryFlag(IntEnum):
    """Bits in the flags of queries and responses."""

    ACK = 1
    """Of a query: acks are wanted. Of a response: it is one."""
    NO_BROADCAST = 2
    """The query is not to be passed on."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A member announces that it joined, or it or an operator that it leaves."""

    leave: bool
    node: str
    time: int
    prune: bool = False
    """Forget the member outright, once it is gone."""


@dataclass(frozen=True, slots=True)
class UserEvent:
    """An event that an operator sent to all members."""

    time: int
    name: bytes
    payload: bytes
    coalesce: bool = True
    """Receivers may hand on only the last one of this name."""


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """Only these nodes answer."""

    names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Only nodes answer whose tag matches an RE2 expression somewhere; a missing tag is empty."""

    tag: str
    expression: str


@dataclass(frozen=True, slots=True)
class UnknownFilter:
    """One that we cannot apply, so that nobody here answers."""


QueryFilter: TypeAlias = NodeFilter | TagFilter | UnknownFilter


@dataclass(frozen=True, slots=True)
class SerfQuery:
    """A question to all members that pass its filters."""

    time: int
    id: int
    address: Address
    """Where answers go."""
    source_name: str
    """Who asks; empty from old agents."""
    name: bytes
    payload: bytes
    filters: tuple[QueryFilter, ...] = ()
    flags: int = 0
    relay_factor: int = 0
    """Over how many other members each answer goes, too."""
    timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class QueryResponse:
    """What one member answers, or that it took the query."""

    time: int
    id: int
    node: str
    is_ack: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class RelayedMessage:
    """Asks us to send `payload`, a whole message, to another member."""

    address: Address
    payload: bytes


SerfMessage: TypeAlias = Intent | UserEvent | SerfQuery | QueryResponse | RelayedMessage
"""What a user message carries."""


def pack_serf(kind: SerfType, fields: Mapping[str, object] | None) -> bytes:
    """Return a payload: its type and its map, or nil."""
    body: bytes = msgpack.packb(fields, use_bin_type=False)
    return bytes([kind]) + body


def encode_serf(message: SerfMessage) -> bytes:
    """Return the payload of a message."""
    match message:
        case Intent(True, node, time, prune):
            return pack_serf(SerfType.LEAVE, {"LTime": time, "Node": node, "Prune": prune})
        case Intent(_, node, time, _):
            return pack_serf(SerfType.JOIN, {"LTime": time, "Node": node})
        case UserEvent(time, name, payload, coalesce):
            fields: dict[str, object] = {"CC": coalesce, "LTime": time}
            return pack_serf(SerfType.EVENT, fields | {"Name": name, "Payload": payload})
        case SerfQuery():
            return _encode_query(message)
        case QueryResponse(time, query_id, node, is_ack, payload):
            flags = int(QueryFlag.ACK) if is_ack else 0
            fields = {"Flags": flags, "From": node, "ID": query_id, "LTime": time}
            return pack_serf(
                SerfType.QUERY_RESPONSE, fields | {"Payload": None if is_ack else payload}
            )
        case RelayedMessage((host, port), payload):
            place = {"IP": pack_ip(host), "Port": port, "Zone": ""}
            return pack_serf(SerfType.RELAY, {"DestAddr": place, "DestName": ""}) + payload
    assert_never(message)


def decode_serf(payload: bytes) -> SerfMessage | None:
    """Return what a user message says, None for a type unknown to us; raises `MessageInvalid`."""
    if not payload:
        raise MessageInvalid("empty Serf message")
    body = payload[1:]
    match payload[0]:
        case SerfType.LEAVE | SerfType.JOIN as kind:
            fields = MessageFields(unpack(body))
            leave = kind == SerfType.LEAVE
            time = fields.number("LTime", TIME_MAX)
            return Intent(leave, fields.name("Node"), time, leave and fields.flag("Prune"))
        case SerfType.EVENT:
            fields = MessageFields(unpack(body))
            event = user_event_of(fields, fields.number("LTime", TIME_MAX))
            return UserEvent(event.time, event.name, event.payload, fields.flag("CC"))
        case SerfType.QUERY:
            return _query_of(unpack(body))
        case SerfType.QUERY_RESPONSE:
            fields = MessageFields(unpack(body))
            return QueryResponse(
                time=fields.number("LTime", TIME_MAX),
                id=fields.number("ID"),
                node=fields.name("From"),
                is_ack=bool(fields.number("Flags") & QueryFlag.ACK),
                payload=fields.raw("Payload") or b"",
            )
        case SerfType.RELAY:
            header, rest = unpack_prefix(body)
            place = header.get(b"DestAddr")
            if not isinstance(place, dict):
                raise MessageInvalid("a relayed message without an address")
            return RelayedMessage(MessageFields(place).address("IP", "Port"), rest)
        case _:
            return None


def user_event_of(fields: MessageFields, time: int) -> UserEvent:
    """Return the event in a decoded map, as in messages and states; it may be coalesced."""
    return UserEvent(time, fields.raw("Name") or b"", fields.raw("Payload") or b"")


def shown(name: bytes) -> str:
    """Return the name of an event or query for people: Serf allows any bytes."""
    return name.decode(errors="backslashreplace")


def _encode_query(query: SerfQuery) -> bytes:
    host, port = query.address
    return pack_serf(
        SerfType.QUERY,
        {
            "Addr": pack_ip(host),
            "Filters": [_encode_filter(each) for each in query.filters] or None,
            "Flags": query.flags,
            "ID": query.id,
            "LTime": query.time,
            "Name": query.name,
            "Payload": query.payload,
            "Port": port,
            "RelayFactor": query.relay_factor,
            "SourceNode": query.source_name,
            "Timeout": min(int(query.timeout_s * _NANOSECONDS), _TIMEOUT_NS_MAX),
        },
    )


def _query_of(raw: dict[object, object]) -> SerfQuery:
    fields = MessageFields(raw)
    filters = raw.get(b"Filters") or []
    if not isinstance(filters, list):
        raise MessageInvalid("filters of a query that are no list")
    return SerfQuery(
        time=fields.number("LTime", TIME_MAX),
        id=fields.number("ID"),
        address=fields.address("Addr", "Port"),
        source_name=fields.text("SourceNode"),
        name=fields.raw("Name") or b"",
        payload=fields.raw("Payload") or b"",
        filters=tuple(_filter_of(raw_of(each)) for each in filters),
        flags=fields.number("Flags"),
        relay_factor=fields.number("RelayFactor", 255),
        timeout_s=fields.number("Timeout", _TIMEOUT_NS_MAX) / _NANOSECONDS,
    )


def _encode_filter(query_filter: QueryFilter) -> bytes:
    match query_filter:
        case NodeFilter(names):
            return b"\x00" + bytes(msgpack.packb(list(names), use_bin_type=False))
        case TagFilter(tag, expression):
            fields = {"Expr": expression, "Tag": tag}
            return b"\x01" + bytes(msgpack.packb(fields, use_bin_type=False))
        case UnknownFilter():
            return b"\xff"
    assert_never(query_filter)


def _filter_of(raw: bytes) -> QueryFilter:
    """Return a filter; one that does not decode does not stop the query from being passed on."""
    try:
        if raw[:1] == b"\x00":
            return NodeFilter(_names_of(raw[1:]))
        if raw[:1] == b"\x01":
            fields = MessageFields(unpack(raw[1:]))
            tag, expression = fields.raw("Tag") or b"", fields.raw("Expr") or b""
            return TagFilter(text_of(tag), text_of(expression))
    except MessageInvalid:
        pass  # as good as one that is unknown
    return UnknownFilter()


def _names_of(raw: bytes) -> tuple[bytes, ...]:
    # The list stands alone; as the value of a map, `unpack` reads it with all its limits.
    names = unpack(b"\x81\xa0" + raw).get(b"")
    if not isinstance(names, list):
        raise MessageInvalid("names that are no list")
    return tuple(raw_of(name) for name in names)
