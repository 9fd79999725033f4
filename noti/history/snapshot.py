"""The bytes of the whole replicated state, made and read in pieces.

Enters: the parts of a state; bytes of a snapshot. Leaves: pieces; the parts, fully checked.
Never: I/O, clocks; more than a piece in work at a time, so that a full history can be written and
read over many turns.

A snapshot is a sequence of msgpack arrays, one a piece: the head, which begins with the version;
runs of events, of tracked topics, of idempotency keys, of subscriptions, of revocations; the end.
Pieces can be cut and joined at will: where one ends is in its bytes. Equal states give equal
pieces.

At level 0 (`noti.history.levels`) a snapshot is of version 2, as noti 0.6 writes it. Version 3 says
the level after its own number. Version 1, of noti 0.2, was a single array. All are read.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import msgpack

from noti.errors import LevelUnsupported, MessageInvalid
from noti.history.commands import (
    is_content,
    is_integer,
    is_topics,
    limits_fields,
    limits_of,
    unpack,
)
from noti.history.duplicates import KEYS_MAX, IdempotencyKeys, KeyedEvent
from noti.history.levels import SUPPORTED, too_old
from noti.history.limits import HistoryLimits
from noti.history.notification import Notification
from noti.history.retention import (
    Kept,
    Retention,
    TrackedTopic,
    kept_bytes,
    tells_of_subscription,
    window_max,
)
from noti.history.revocations import RevocationTable
from noti.history.subscriptions import SubscriptionTable

STREAMS_MAX: Final = 64
"""Stream identities whose floor is remembered. A stream that is deleted and made again is a new
identity; 64 such events outlast any redelivery, and a floor costs about 100 bytes."""

PIECE_BYTES: Final = 256 * 1024
"""A piece is closed at this: 1 to 2 ms of work. One event more may be in it."""

VERSION: Final = 3
_LEVEL_0_VERSION: Final = 2
_V1_START: Final = b"\x95\x01"
"""An array of five, which begins with 1."""

_END: Final = 0
_EVENTS: Final = 1
_TOPICS: Final = 2
_KEYS: Final = 3
_SUBSCRIPTIONS: Final = 4
_REVOCATIONS: Final = 5

_VALUE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest piece that is read: an event is at most as long as an entry of the log, 8 MiB."""
_LIST_MAX: Final = 2**18
"""Longest list that is read: msgpack allocates it before it has seen what is in it. No item of a
piece takes less than a byte; an event has 1,000 topics at most."""


@dataclass(slots=True)
class StoreParts:
    """All that is replicated."""

    floors: dict[str, int] = field(default_factory=dict)
    """By stream, least recently published first."""
    retention: Retention = field(default_factory=Retention)
    keys: IdempotencyKeys = field(default_factory=IdempotencyKeys)
    subscriptions: SubscriptionTable = field(default_factory=SubscriptionTable)
    revocations: RevocationTable = field(default_factory=RevocationTable)
    level: int = 0
    """See `noti.history.levels`."""


def pieces_of(parts: StoreParts) -> Iterator[bytes]:
    """Return the state as it is now, in pieces that are encoded one by one as they are asked for.

    It is copied first, without what it holds, which never changes: 1 ms for 100,000 events.
    """
    retention = parts.retention
    head = [
        *((VERSION, parts.level) if parts.level else (_LEVEL_0_VERSION,)),
        limits_fields(retention.limits),
        retention.last_seq,
        retention.lost_through,
        retention.untracked_lost_through,
        len(retention.sparse),
        len(retention.window),
        [[stream, floor] for stream, floor in parts.floors.items()],
    ]
    events = (*retention.sparse.values(), *retention.window)
    topics = [(name, one.lost_through, tuple(one.seqs)) for name, one in retention.topics.items()]
    keys = tuple(parts.keys.known.items())
    tables = (parts.subscriptions.fields(), parts.revocations.fields())
    return _pieces(head, events, topics, keys, *tables)


def _pieces(
    head: list[object],
    events: Iterable[Kept],
    topics: Iterable[tuple[str, int, tuple[int, ...]]],
    keys: Iterable[tuple[str, KeyedEvent]],
    subscriptions: Iterable[list[object]],
    revocations: Iterable[object],
) -> Iterator[bytes]:
    pack = msgpack.Packer().pack
    yield pack(head)
    yield from _runs(_EVENTS, ([taken_ms, *one] for one, taken_ms in events))
    yield from _runs(_TOPICS, topics)
    yield from _runs(_KEYS, ([key, *keyed] for key, keyed in keys))
    yield from _runs(_SUBSCRIPTIONS, subscriptions)
    yield from _runs(_REVOCATIONS, revocations)
    yield pack([_END])


def _runs(kind: int, items: Iterable[object]) -> Iterator[bytes]:
    packer = msgpack.Packer()
    run: list[bytes] = []
    size_bytes = 0
    for item in items:
        packed = packer.pack(item)
        run.append(packed)
        size_bytes += len(packed)
        if size_bytes >= PIECE_BYTES:
            yield _piece(kind, run)
            run, size_bytes = [], 0
    if run:
        yield _piece(kind, run)


def _piece(kind: int, run: list[bytes]) -> bytes:
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(2)
    packer.pack(kind)
    packer.pack_array_header(len(run))
    return packer.bytes() + b"".join(run)


class SnapshotReader:
    """Reads a snapshot that comes in pieces, however they are cut."""

    def __init__(self, supports: int = SUPPORTED) -> None:
        """Begin; states beyond the level `supports` are not read."""
        self._supports = supports
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=_VALUE_BYTES_MAX, max_array_len=_LIST_MAX, max_map_len=0, max_ext_len=0
        )
        self._start = b""
        self._old: list[bytes] = []
        """What came of a snapshot of version 1, which can only be read whole."""
        self._parts = StoreParts()
        self._sparse = self._in_window = -1
        """Events that are still to come; -1 before the head."""
        self._by_seq: dict[int, Notification] = {}
        self._fed_bytes = 0
        self._end_at = 0
        """Where the end was, 0 before it."""

    def feed(self, data: bytes | memoryview) -> None:
        """Take what follows; raises `MessageInvalid`, or `LevelUnsupported` at the head."""
        if len(self._start) < len(_V1_START):
            self._start += bytes(data[: len(_V1_START)])
            if self._start[:2] == _V1_START:
                self._old = [self._start[: self._fed_bytes]]
        self._fed_bytes += len(data)
        if self._old:
            self._old.append(bytes(data))
            return
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            self._feed(view[start : start + PIECE_BYTES])

    def finish(self) -> StoreParts:
        """Return the state; raises `MessageInvalid` when anything is missing."""
        if self._old:
            return _read_v1(b"".join(self._old))
        if self._end_at != self._fed_bytes or not self._end_at:
            raise MessageInvalid("a snapshot of the store is cut off, or goes on behind its end")
        return self._parts

    def _feed(self, data: memoryview) -> None:
        try:
            self._unpacker.feed(data)
            for value in self._unpacker:
                self._read(value)
        except (ValueError, RecursionError, msgpack.BufferFull) as error:
            # Every error of msgpack about its input is a ValueError (also UnicodeDecodeError).
            raise MessageInvalid(f"not msgpack: {error}") from error

    def _read(self, value: object) -> None:
        match value:
            case _ if self._end_at:
                raise MessageInvalid("a snapshot of the store goes on behind its end")
            case [version, *fields] if self._sparse < 0:
                self._read_head(version, fields)
            case [1, [*events]]:
                for event in events:
                    self._read_event(event)
            case [2, [*topics]]:
                for topic in topics:
                    self._read_topic(topic)
            case [3, [*keys]]:
                for key in keys:
                    self._read_key(key)
            case [4, [*subscriptions]]:
                for one in subscriptions:
                    self._parts.subscriptions.add_fields(one)
            case [5, [*revocations]]:
                for one in revocations:
                    self._parts.revocations.add_fields(one)
            case [0]:
                self._read_end()
            case _:
                raise MessageInvalid("a piece of a snapshot has the wrong fields")

    def _read_head(self, version: object, fields: Any) -> None:
        if is_integer(version) and version > VERSION:
            raise MessageInvalid(
                f"snapshot version {version} is above {VERSION}: this node is older: upgrade it"
            )
        if version == VERSION:
            fields = self._read_level(fields)
        elif version != _LEVEL_0_VERSION:
            raise MessageInvalid("the head of a snapshot does not begin with a version")
        match fields:
            case [[*limits], last_seq, lost, untracked_lost, sparse, window, [*floors]] if (
                is_integer(last_seq)
                and is_integer(lost)
                and is_integer(untracked_lost)
                and is_integer(sparse)
                and is_integer(window)
                and untracked_lost <= lost
                and len(floors) <= STREAMS_MAX
            ):
                retention = self._parts.retention
                retention.limits = limits_of(limits)
                retention.last_seq = last_seq
                retention.lost_through, retention.untracked_lost_through = lost, untracked_lost
                self._parts.floors = dict(_floor(fields) for fields in floors)
                self._sparse, self._in_window = sparse, window
                if lost + window <= last_seq and window <= window_max(retention.limits):
                    return
        raise MessageInvalid("the head of a snapshot has the wrong fields")

    def _read_level(self, fields: Any) -> Any:
        """Take the level; return the fields behind it."""
        match fields:
            case [level, *others] if is_integer(level, minimum=1):
                if level > self._supports:
                    raise LevelUnsupported(too_old(level, self._supports))
                self._parts.level = level
                return others
        raise MessageInvalid("the level of a snapshot is not one")

    def _read_event(self, fields: Any) -> None:
        retention = self._parts.retention
        if type(fields) is list and len(fields) == 9:
            taken_ms, seq, id_, topics, *others = fields
            if (
                is_integer(taken_ms)
                and is_integer(seq, minimum=1)
                and is_content(id_, topics, *others)
            ):
                kept = Kept(Notification(seq, id_, tuple(topics), *others), taken_ms)
                size_bytes = kept_bytes(kept.notification)
                retention.size_bytes += size_bytes
                window_seq = retention.last_seq - self._in_window + 1
                if self._sparse:
                    after = next(reversed(retention.sparse), 0)
                    if after < seq < window_seq:
                        self._sparse -= 1
                        retention.sparse[seq] = kept
                        retention.sparse_bytes += size_bytes
                        return
                elif self._in_window and seq == window_seq:
                    self._in_window -= 1
                    retention.window.append(kept)
                    retention.told += tells_of_subscription(kept.notification)
                    return
        raise MessageInvalid("an event in a snapshot has the wrong fields, or the wrong place")

    def _read_topic(self, fields: Any) -> None:
        retention = self._parts.retention
        limits = retention.limits
        if self._sparse == self._in_window == 0 and not self._by_seq:
            self._by_seq = {kept.notification.seq: kept.notification for kept in retention.all()}
        match fields:
            case [str(topic), lost, [*seqs]] if (
                is_integer(lost)
                and lost <= retention.lost_through
                and topic not in retention.topics
                and len(retention.topics) < limits.topics_max
                and len(seqs) <= limits.per_topic
                and limits.per_topic
                and all(type(seq) is int for seq in seqs)
                and all(topic in self._topics_at(seq) for seq in seqs)
                and all(one < following for one, following in pairwise(seqs))
            ):
                retention.topics[topic] = TrackedTopic(lost, deque(seqs))
                for seq in seqs:
                    retention.protecting[seq] = retention.protecting.get(seq, 0) + 1
            case _:
                raise MessageInvalid("a topic in a snapshot has the wrong fields")

    def _topics_at(self, seq: int) -> tuple[str, ...]:
        found = self._by_seq.get(seq)
        return () if found is None else found.topics

    def _read_key(self, fields: Any) -> None:
        known = self._parts.keys.known
        match fields:
            case [str(key), str(event_id), bytes(digest)] if (
                key and key not in known and len(known) < KEYS_MAX
            ):
                known[key] = KeyedEvent(event_id, digest)
            case _:
                raise MessageInvalid("an idempotency key in a snapshot has the wrong fields")

    def _read_end(self) -> None:
        retention = self._parts.retention
        if self._sparse or self._in_window:
            raise MessageInvalid("a snapshot of the store lacks events")
        if any(seq not in retention.protecting for seq in retention.sparse):
            raise MessageInvalid("a snapshot of the store keeps an event that no topic needs")
        self._end_at = self._unpacker.tell()


def _read_v1(snapshot: bytes) -> StoreParts:
    match unpack(snapshot):
        case [1, int(size), int(last_seq), [*floors], [*history]] if (
            is_integer(size, minimum=1)
            and is_integer(last_seq)
            and len(history) <= min(size, last_seq)
            and len(floors) <= STREAMS_MAX
        ):
            lost = last_seq - len(history)
            retention = Retention(HistoryLimits(size), lost)
            retention.lost_through = retention.untracked_lost_through = lost
            for seq, fields in enumerate(history, lost + 1):
                notification = _notification_v1(seq, fields)
                retention.append(notification, notification.created_ms)
            return StoreParts(dict(_floor(fields) for fields in floors), retention)
        case _:
            raise MessageInvalid("a snapshot of the store has the wrong fields")


def _floor(fields: object) -> tuple[str, int]:
    match fields:
        case [str(stream), floor] if is_integer(floor, minimum=1):
            return stream, floor
        case _:
            raise MessageInvalid("a floor in a snapshot has the wrong fields")


def _notification_v1(seq: int, fields: object) -> Notification:
    match fields:
        case [str(id_), topics, str(data), created_ms] if is_topics(topics) and is_integer(
            created_ms
        ):
            return Notification(seq, id_, tuple(topics), data, created_ms)
        case _:
            raise MessageInvalid("a notification in a snapshot has the wrong fields")
