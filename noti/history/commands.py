"""The commands that go through the Raft log, and their bytes.

Enters: commands to encode; bytes to decode. Leaves: bytes; commands, fully checked.
Never: numbering or dropping events, which the store does; I/O, clocks.

A command is a msgpack array whose first element is the kind number. Arrays, not maps: they are
smaller, and two encoders cannot disagree about the order of keys. A kind number is never given a
second meaning; what a kind holds is only ever extended by a new kind, because old entries stay in
logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeGuard, assert_never

import msgpack

from noti.errors import CommandUnknown, MessageInvalid
from noti.history.notification import Event

_PUBLISH_BATCH: Final = 1
_SET_LIMITS: Final = 2
_PUBLISH: Final = 3

_TEXT_ONLY: Final = {str}

INTEGER_MAX: Final = 2**63 - 1
"""Sequences, sizes and times above this are invalid: no cluster reaches it."""


@dataclass(frozen=True, slots=True)
class PublishBatch:
    """Show these events, except those that were shown before."""

    stream: str
    """Identity of the source's stream, which `Event.source_seq` counts in."""
    events: tuple[Event, ...]
    """In stream order."""


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Change what every node remembers, at the same place in the log on all of them."""

    history_size: int
    """Notifications kept for browsers that resume; at least 1."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Show these events of publishers, except those whose id history holds already."""

    events: tuple[Event, ...]
    """Their `source_seq` is 0."""


Command: TypeAlias = PublishBatch | SetLimits | Publish


def encode(command: Command) -> bytes:
    """Return the bytes of `command`; equal commands give equal bytes."""
    fields: list[object]
    match command:
        case PublishBatch(stream, events):
            fields = [_PUBLISH_BATCH, stream, [_event_fields(event) for event in events]]
        case SetLimits(history_size):
            fields = [_SET_LIMITS, history_size]
        case Publish(events):
            fields = [_PUBLISH, [[e.id, list(e.topics), e.data, e.created_ms] for e in events]]
        case _:
            assert_never(command)
    packed: bytes = msgpack.packb(fields)
    return packed


def decode(data: bytes) -> Command:
    """Return the command in `data`.

    Raises `CommandUnknown` for a kind that a newer version may have written, `MessageInvalid` for
    everything else that `encode` cannot have made.
    """
    match unpack(data):
        case [kind, *_] if not is_integer(kind):
            raise MessageInvalid("a command does not begin with its kind")
        case [1, str(stream), [*events]]:
            return PublishBatch(stream, tuple([_event(fields) for fields in events]))
        case [2, history_size] if is_integer(history_size, minimum=1):
            return SetLimits(history_size)
        case [3, [*events]]:
            return Publish(tuple([_published(fields) for fields in events]))
        case [int(kind), *_] if kind not in (_PUBLISH_BATCH, _SET_LIMITS, _PUBLISH):
            raise CommandUnknown(kind)
        case _:
            raise MessageInvalid("a command does not have the fields of its kind")


def unpack(data: bytes) -> object:
    """Return the one value that msgpack finds in `data`; raises `MessageInvalid` otherwise."""
    try:
        value: object = msgpack.unpackb(data)
    except (ValueError, RecursionError) as error:
        # Every error of msgpack about its input is a ValueError (also UnicodeDecodeError).
        raise MessageInvalid(f"not msgpack: {error}") from error
    return value


def is_integer(value: object, *, minimum: int = 0) -> TypeGuard[int]:
    """Tell whether `value` is an integer from `minimum` to `INTEGER_MAX`, and no bool."""
    return type(value) is int and minimum <= value <= INTEGER_MAX


def is_topics(value: object) -> TypeGuard[Sequence[str]]:
    """Tell whether `value`, as msgpack unpacks it, is a list of topics, at least one."""
    return type(value) is list and {*map(type, value)} == _TEXT_ONLY


def _event_fields(event: Event) -> list[object]:
    return [event.source_seq, event.id, list(event.topics), event.data, event.created_ms]


# These two run for every event on every node. A `match` with a pattern for each field takes twice
# as long.


def _event(fields: Any) -> Event:
    if type(fields) is list and len(fields) == 5:
        source_seq, id_, topics, data, created_ms = fields
        if (
            is_integer(source_seq, minimum=1)
            and type(id_) is str
            and is_topics(topics)
            and type(data) is str
            and is_integer(created_ms)
        ):
            return Event(source_seq, id_, tuple(topics), data, created_ms)
    raise MessageInvalid("an event in a batch has the wrong fields")


def _published(fields: Any) -> Event:
    if type(fields) is list and len(fields) == 4:
        id_, topics, data, created_ms = fields
        if type(id_) is str and is_topics(topics) and type(data) is str and is_integer(created_ms):
            return Event(0, id_, tuple(topics), data, created_ms)
    raise MessageInvalid("a published event has the wrong fields")
