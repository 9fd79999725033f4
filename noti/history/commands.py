"""The commands that go through the Raft log, and their bytes.

Enters: commands to encode; bytes to decode. Leaves: bytes; commands, fully checked.
Never: numbering or dropping events, which the store does; I/O, clocks.

A command is a msgpack array whose first element is the kind number. Arrays, not maps: they are
smaller, and two encoders cannot disagree about the order of keys. A kind number is never given a
second meaning; what a kind holds is only ever extended by a new kind, because old entries stay in
logs. A new kind is written only at the level that adds it (`noti.history.levels`). Kinds 1 to 3 are
those of version 0.2: they are read, with what they meant then, and no node writes them any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeGuard, assert_never

import msgpack

from noti.errors import CommandUnknown, MessageInvalid
from noti.history.levels import RAISE_LEVEL, RaiseLevel
from noti.history.limits import HistoryLimits
from noti.history.notification import Event
from noti.history.revocations import REVOKE, Revoke, fields_of_revoke, revoke_of
from noti.history.subscription_commands import (
    SUBSCRIPTION_KINDS,
    EndNode,
    EndSubscriber,
    SubscriptionBatch,
    SubscriptionCommand,
    command_of,
    fields_of,
)
from noti.history.traceparent import is_trace

_PUBLISH_BATCH_V1: Final = 1
_SET_HISTORY_SIZE: Final = 2
_PUBLISH_V1: Final = 3
_PUBLISH_BATCH: Final = 4
_PUBLISH: Final = 5
_SET_LIMITS: Final = 6
_EXPIRE: Final = 7
_ADVANCE_FLOOR: Final = 8
_TRACED_BATCH: Final = 10
_TRACED: Final = 11
"""As kinds 4 and 5, with the traces behind them; from level `TRACED_EVENTS` on."""

_KINDS: Final = {*range(_PUBLISH_BATCH_V1, _TRACED + 1), *SUBSCRIPTION_KINDS, REVOKE}

_TRACE: Final = attrgetter("trace")

_TEXT_ONLY: Final = {str}

INTEGER_MAX: Final = 2**63 - 1
"""Sequences, sizes and times above this are invalid: no cluster reaches it."""


@dataclass(frozen=True, slots=True)
class PublishBatch:
    """Show these events of a source's stream, except those that were shown before.

    An event is dropped at or below the stream's floor, and when history holds one with the same id,
    topics and data.
    """

    stream: str
    """Identity of the source's stream, which `Event.source_seq` counts in."""
    events: tuple[Event, ...]
    """In stream order. Their `idempotency_key` is empty."""
    taken_ms: int = 0
    """Wall time in milliseconds since 1970 at which a node made this command; events expire by
    it."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Show these events of publishers, except retries.

    An event is dropped when its idempotency key is known, and when history holds one with the same
    id, topics and data.
    """

    events: tuple[Event, ...]
    """Their `source_seq` is 0."""
    taken_ms: int = 0
    """As in `PublishBatch`."""


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Change what every node keeps, at the same place in the log on all of them."""

    limits: HistoryLimits


@dataclass(frozen=True, slots=True)
class Expire:
    """Forget the oldest events, up to the first that was not taken before this time."""

    before_ms: int
    """Wall time in milliseconds since 1970, compared with `taken_ms` of the events' commands."""


@dataclass(frozen=True, slots=True)
class AdvanceFloor:
    """Take a source's stream for read up to here: what was not shown can never be an event."""

    stream: str
    """As in `PublishBatch`."""
    seq: int
    """Nothing happens when the floor is there already."""


@dataclass(frozen=True, slots=True)
class PublishBatchV1:
    """Kind 1: events of a stream, dropped by its floor alone."""

    stream: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class PublishV1:
    """Kind 3: events of publishers, dropped when history holds the id, whatever their content."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class SetHistorySize:
    """Kind 2: change `HistoryLimits.count` alone."""

    count: int


Command: TypeAlias = (
    PublishBatch
    | Publish
    | SetLimits
    | Expire
    | AdvanceFloor
    | PublishBatchV1
    | PublishV1
    | SetHistorySize
    | SubscriptionCommand
    | Revoke
    | RaiseLevel
)


def encode(command: Command) -> bytes:
    """Return the bytes of `command`; equal commands give equal bytes."""
    fields: list[object]
    match command:
        case PublishBatch(stream, events, taken_ms):
            # As they lie in an event, which is made for it: msgpack writes tuples as lists.
            in_stream = [event[:8] for event in events]
            fields = [_PUBLISH_BATCH, taken_ms, stream, in_stream]
            if any(map(_TRACE, events)):
                fields = [_TRACED_BATCH, taken_ms, stream, in_stream, _traces(events)]
        case Publish(events, taken_ms):
            keyed = [event[1:9] for event in events]
            fields = [_PUBLISH, taken_ms, keyed]
            if any(map(_TRACE, events)):
                fields = [_TRACED, taken_ms, keyed, _traces(events)]
        case SetLimits(limits):
            fields = [_SET_LIMITS, *limits_fields(limits)]
        case Expire(before_ms):
            fields = [_EXPIRE, before_ms]
        case AdvanceFloor(stream, seq):
            fields = [_ADVANCE_FLOOR, stream, seq]
        case PublishBatchV1(stream, events):
            old = [[e.source_seq, e.id, list(e.topics), e.data, e.created_ms] for e in events]
            fields = [_PUBLISH_BATCH_V1, stream, old]
        case PublishV1(events):
            fields = [_PUBLISH_V1, [[e.id, list(e.topics), e.data, e.created_ms] for e in events]]
        case SetHistorySize(count):
            fields = [_SET_HISTORY_SIZE, count]
        case SubscriptionBatch() | EndNode() | EndSubscriber():
            fields = fields_of(command)
        case Revoke():
            fields = fields_of_revoke(command)
        case RaiseLevel(level):
            fields = [RAISE_LEVEL, level]
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
        case [4, int(taken_ms), str(stream), [*events]] if is_integer(taken_ms):
            return PublishBatch(stream, tuple([_in_stream(fields) for fields in events]), taken_ms)
        case [5, int(taken_ms), [*events]] if is_integer(taken_ms):
            return Publish(tuple([_keyed(fields) for fields in events]), taken_ms)
        case [6, *fields]:
            return SetLimits(limits_of(fields))
        case [7, before_ms] if is_integer(before_ms):
            return Expire(before_ms)
        case [8, str(stream), seq] if is_integer(seq, minimum=1):
            return AdvanceFloor(stream, seq)
        case [9, level] if is_integer(level, minimum=1):
            return RaiseLevel(level)
        case [10, int(taken_ms), str(stream), [*events], [*traces]] if is_integer(taken_ms):
            in_stream = _with_traces([_in_stream(fields) for fields in events], traces)
            return PublishBatch(stream, in_stream, taken_ms)
        case [11, int(taken_ms), [*events], [*traces]] if is_integer(taken_ms):
            return Publish(_with_traces([_keyed(fields) for fields in events], traces), taken_ms)
        case [1, str(stream), [*events]]:
            return PublishBatchV1(stream, tuple([_in_stream_v1(fields) for fields in events]))
        case [2, count] if is_integer(count, minimum=1):
            return SetHistorySize(count)
        case [3, [*events]]:
            return PublishV1(tuple([_published_v1(fields) for fields in events]))
        case [int(kind), *fields] if kind in SUBSCRIPTION_KINDS:
            return command_of([kind, *fields])
        case [30, *fields]:
            return revoke_of(fields)
        case [int(kind), *_] if kind not in _KINDS:
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
    if type(value) is not list:
        return False
    return type(value[0]) is str if len(value) == 1 else {*map(type, value)} == _TEXT_ONLY


def limits_fields(limits: HistoryLimits) -> list[object]:
    """Return limits as commands and snapshots hold them."""
    counts = [limits.count, limits.size_bytes, limits.age_ms, limits.per_topic, limits.topics_max]
    return list[object](counts)


def limits_of(fields: Sequence[object]) -> HistoryLimits:
    """Return the limits in what `limits_fields` made; raises `MessageInvalid`."""
    match fields:
        case [count, size_bytes, age_ms, per_topic, topics_max] if (
            is_integer(count, minimum=1)
            and is_integer(size_bytes, minimum=1)
            and is_integer(age_ms)
            and is_integer(per_topic)
            and is_integer(topics_max, minimum=1)
        ):
            return HistoryLimits(count, size_bytes, age_ms, per_topic, topics_max)
        case _:
            raise MessageInvalid("limits of history have the wrong fields")


def _traces(events: Sequence[Event]) -> list[object]:
    """Return the traces of those that have one, each behind its place."""
    return [[place, event.trace] for place, event in enumerate(events) if event.trace]


def _with_traces(events: list[Event], traces: Sequence[object]) -> tuple[Event, ...]:
    last = -1
    for one in traces:
        match one:
            case [place, trace] if (
                is_integer(place) and last < place < len(events) and is_trace(trace)
            ):
                events[place] = events[place]._replace(trace=trace)
                last = place
            case _:
                raise MessageInvalid("a trace in a batch has the wrong fields")
    return tuple(events)


# These run for every event on every node. A `match` with a pattern for each field takes twice as
# long, and so do lists in between.


def _in_stream(fields: Any) -> Event:
    if type(fields) is list and len(fields) == 8:
        source_seq, id_, topics, data, created_ms, type_, retry_ms, private = fields
        if (
            type(source_seq) is int
            and 1 <= source_seq <= INTEGER_MAX
            and is_content(id_, topics, data, created_ms, type_, retry_ms, private)
        ):
            # Made as a tuple is: the call that names fields takes three times as long.
            return tuple.__new__(
                Event,
                (
                    source_seq,
                    id_,
                    tuple(topics),
                    data,
                    created_ms,
                    type_,
                    retry_ms,
                    private,
                    "",
                    "",
                ),
            )
    raise MessageInvalid("an event in a batch has the wrong fields")


def _keyed(fields: Any) -> Event:
    if type(fields) is list and len(fields) == 8:
        id_, topics, data, created_ms, type_, retry_ms, private, key = fields
        if type(key) is str and is_content(id_, topics, data, created_ms, type_, retry_ms, private):
            return tuple.__new__(
                Event,
                (0, id_, tuple(topics), data, created_ms, type_, retry_ms, private, key, ""),
            )
    raise MessageInvalid("a published event has the wrong fields")


def is_content(
    id_: Any, topics: Any, data: Any, created_ms: Any, type_: Any, retry_ms: Any, private: Any
) -> bool:
    """Tell whether these are what an event says, as msgpack unpacks it, each of its type."""
    return (
        type(id_) is type(data) is type(type_) is str
        and type(created_ms) is type(retry_ms) is int
        and type(private) is bool
        and 0 <= created_ms <= INTEGER_MAX
        and 0 <= retry_ms <= INTEGER_MAX
        and is_topics(topics)
    )


def _in_stream_v1(fields: Any) -> Event:
    match fields:
        case [source_seq, *content] if is_integer(source_seq, minimum=1):
            return _published_v1(content)._replace(source_seq=source_seq)
        case _:
            raise MessageInvalid("an event in a batch has the wrong fields")


def _published_v1(fields: Any) -> Event:
    match fields:
        case [str(id_), topics, str(data), created_ms] if is_topics(topics) and is_integer(
            created_ms
        ):
            return Event(0, id_, tuple(topics), data, created_ms)
        case _:
            raise MessageInvalid("a published event has the wrong fields")
