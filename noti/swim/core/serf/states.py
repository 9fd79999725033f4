"""Serf's part of a full state: clocks, intents of members, the latest user events.

Enters: states, or bytes from anywhere. Leaves: bytes, or states with odd records left out.
Never: any exception but `MessageInvalid` for bytes from outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from noti.errors import MessageInvalid
from noti.swim.core.encoding import MessageFields, unpack
from noti.swim.core.serf.messages import TIME_MAX, SerfType, UserEvent, pack_serf, user_event_of

_ITEMS_MAX = 4096
"""Members in a state's maps and lists; see `NODES_MAX` in `streams.py`."""


@dataclass(frozen=True, slots=True)
class SerfState:
    """What one node's layer of Serf knows. Its clocks show the times of its next messages."""

    time: int
    status_times: Mapping[str, int]
    """Time of the newest intent about each member."""
    left: frozenset[str]
    """Names of members whose newest intent was to leave."""
    event_time: int = 1
    events: tuple[UserEvent, ...] = ()
    query_time: int = 1


def encode_state(state: SerfState) -> bytes:
    """Return the bytes of a state."""
    by_time: dict[int, list[dict[str, bytes]]] = {}
    for event in state.events:
        fields = {"Name": event.name, "Payload": event.payload}
        by_time.setdefault(event.time, []).append(fields)
    return pack_serf(
        SerfType.PUSH_PULL,
        {
            "EventLTime": state.event_time,
            "Events": [{"Events": items, "LTime": time} for time, items in by_time.items()],
            "LTime": state.time,
            "LeftMembers": sorted(state.left),
            "QueryLTime": state.query_time,
            "StatusLTimes": dict(state.status_times),
        },
    )


def decode_state(data: bytes) -> SerfState:
    """Return the state in bytes that are not empty; raises `MessageInvalid`."""
    if data[0] != SerfType.PUSH_PULL:
        raise MessageInvalid("a Serf state of another type")
    raw = unpack(data[1:], _ITEMS_MAX)
    fields = MessageFields(raw)
    times = raw.get(b"StatusLTimes") or {}
    left = raw.get(b"LeftMembers") or []
    events = raw.get(b"Events") or []
    if not isinstance(times, dict) or not isinstance(left, list) or not isinstance(events, list):
        raise MessageInvalid("a Serf state whose members or events are no map or list")
    return SerfState(
        time=fields.number("LTime", TIME_MAX),
        status_times=dict(_status_times(times)),
        left=frozenset(_names(left)),
        event_time=fields.number("EventLTime", TIME_MAX),
        events=tuple(_events(events)),
        query_time=fields.number("QueryLTime", TIME_MAX),
    )


def _status_times(times: Mapping[object, object]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for name in _names(times):
        try:
            found.append((name, MessageFields(times).number(name, TIME_MAX)))
        except MessageInvalid:
            continue
    return found


def _names(values: list[object] | Mapping[object, object]) -> list[str]:
    found: list[str] = []
    for value in values:
        try:
            found.append(MessageFields({b"Name": value}).name("Name"))
        except MessageInvalid:
            continue
    return found


def _events(slots: list[object]) -> list[UserEvent]:
    found: list[UserEvent] = []
    for slot in slots:
        if not isinstance(slot, dict):
            continue  # agents send their whole buffer, most of it nil
        try:
            time = MessageFields(slot).number("LTime", TIME_MAX)
            items = slot.get(b"Events") or []
            maps = [each for each in items if isinstance(each, dict)]
            found += [user_event_of(MessageFields(each), time) for each in maps]
        except (MessageInvalid, TypeError):
            continue
    return found
