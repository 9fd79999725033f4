"""Decides who is sent what next: to a whole group at once, or to one stream that is not in step.

Enters: streams that come and go, what the kernel took of what was sent, sockets that have room
again. Leaves: the next bytes of a group or of a stream, or why a stream must be closed.
Never: sockets, waiting, clocks; a byte of a second chunk before the first one is through, so that
a stream can be ended at any time.

Every adopted stream is in one state. It begins IN_STEP if it has all that its group has, and the
group is not lagging; otherwise BEHIND.

    from                    what happens                                       to
    ---------------------   ------------------------------------------------   --------------
    BEHIND                  it has all that its group has, nothing is unsent   IN_STEP
    BEHIND                  the kernel takes nothing of the rest of a chunk    BLOCKED
    IN_STEP                 the kernel takes only a part of a chunk            BEHIND
    BLOCKED                 the kernel has room again                          BEHIND
    BEHIND, IN_STEP         its time is over                                   ENDING
    BLOCKED                 its time is over                                   ENDING_BLOCKED
    ENDING                  the kernel takes nothing of the rest               ENDING_BLOCKED
    ENDING_BLOCKED          the kernel has room again                          ENDING
    any but CLOSED          see `EndReason`; or its closing chunk is sent      CLOSED
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import assert_never

from noti.streams.bearers import Bearers
from noti.streams.end_reason import EndReason
from noti.streams.feed import Audience, Batch, Feed, FellBehind
from noti.streams.open_streams import (
    NOTHING,
    AdoptedStream,
    Group,
    OpenStream,
    Reader,
    State,
    StreamLimits,
    StreamObserver,
    StreamSocket,
)

FOLLOWS: dict[State, frozenset[State]] = {
    State.BEHIND: frozenset({State.IN_STEP, State.BLOCKED, State.ENDING, State.CLOSED}),
    State.IN_STEP: frozenset({State.BEHIND, State.ENDING, State.CLOSED}),
    State.BLOCKED: frozenset({State.BEHIND, State.ENDING_BLOCKED, State.CLOSED}),
    State.ENDING: frozenset({State.ENDING_BLOCKED, State.CLOSED}),
    State.ENDING_BLOCKED: frozenset({State.ENDING, State.CLOSED}),
    State.CLOSED: frozenset(),
}
"""The table above."""


class Groups:
    """The streams of one hub by audience, and which of these have something to get."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._by_audience: dict[Audience, Group] = {}
        self.lagging: dict[Audience, Group] = {}
        """Those that have not been sent everything up to `passed_seq`."""
        self.passed_seq = 0
        """Up to here, all groups that had something to get were returned by `pass_on`."""

    def enter(self, audience: Audience) -> Group:
        """Count one more stream of `audience`."""
        group = self._by_audience.get(audience)
        if group is None:
            group = self._by_audience[audience] = Group(audience, self.passed_seq)
            self._feed.watch(audience)
            self.lagging[audience] = group
        group.streams += 1
        return group

    def leave(self, group: Group) -> None:
        """Count one stream less."""
        group.streams -= 1
        if group.streams == 0:
            del self._by_audience[group.audience]
            self.lagging.pop(group.audience, None)
            self._feed.forget(group.audience)

    def pass_on(self) -> list[Group]:
        """Let all that the feed has be sent; return the groups that lag now."""
        for audience in self._feed.with_news():
            if (group := self._by_audience.get(audience)) is not None:
                self._lag(group)
        self.passed_seq = self._feed.retained.newest_seq
        return list(self.lagging.values())

    def lag_all(self) -> None:
        """Let every group be looked at in the next pass."""
        for group in self._by_audience.values():
            self._lag(group)

    def _lag(self, group: Group) -> None:
        if not group.lagging:
            group.cursor = self.passed_seq
            group.lagging = True
        self.lagging[group.audience] = group

    def settle(self, group: Group) -> None:
        """Note that a group has been sent everything up to `passed_seq`."""
        group.lagging = False
        if self.lagging.get(group.audience) is group:  # and not a new one of the same audience
            del self.lagging[group.audience]

    def count(self, audiences: Iterable[Audience]) -> int:
        """Return how many streams these audiences have."""
        groups = map(self._by_audience.get, audiences)
        return sum(group.streams for group in groups if group is not None)

    def cursor_of(self, group: Group) -> int:
        """Return where a group's members in step are."""
        return group.cursor if group.lagging else self.passed_seq


def time_for(unsent: memoryview, chunk_bytes_max: int, stall_timeout_s: float) -> float:
    """Return how long a client may be blocked that has not taken all of a chunk, seconds.

    A large event counts as many chunks: a slow line may be able to take no more in that time.
    """
    sent_bytes = memoryview(unsent.obj).nbytes - unsent.nbytes
    return stall_timeout_s * (1 + sent_bytes // chunk_bytes_max)


class Sending:
    """The streams of one hub."""

    def __init__(self, feed: Feed, limits: StreamLimits, chunk_bytes_max: int) -> None:
        """The streams are counted in `limits`."""
        self._feed = feed
        self._limits = limits
        self._chunk_bytes_max = chunk_bytes_max
        self.groups = Groups(feed)
        self.adopted: dict[int, AdoptedStream] = {}
        """By descriptor, as in the next two."""
        self.sendable: dict[int, AdoptedStream] = {}
        """Those that are `BEHIND` or `ENDING`: to be sent something of their own."""
        self._blocked: dict[int, AdoptedStream] = {}
        self.subscriptions: set[OpenStream] = set()
        """Streams that read for themselves, and move their cursors."""
        self.bearers = Bearers()
        self.observer: StreamObserver | None = None
        """Hears of every stream; set before the first one."""
        self._streams_begun = 0

    def adopt(self, reader: Reader, ends_at: float, connection: StreamSocket) -> AdoptedStream:
        """Begin a stream on a connection.

        One that has all that its group has is in step from the beginning, as nearly all are that
        do not resume.
        """
        group = self._enter(reader)
        in_step = not group.lagging and reader.after_seq == self.groups.passed_seq
        stream = AdoptedStream(
            group=group,
            stream_id=self._streams_begun,
            client_key=reader.client_key,
            ends_at=ends_at,
            cursor=reader.after_seq,
            wants_cursors=reader.wants_cursors,
            state=State.IN_STEP if in_step else State.BEHIND,
            connection=connection,
            fd=connection.fileno(),
            live=in_step,
        )
        self.adopted[stream.fd] = stream
        (group.in_step if in_step else self.sendable)[stream.fd] = stream
        self._begun(stream, reader)
        return stream

    def subscribe(self, reader: Reader, ends_at: float) -> OpenStream:
        """Begin a stream that reads for itself."""
        stream = OpenStream(
            group=self._enter(reader),
            stream_id=self._streams_begun,
            client_key=reader.client_key,
            ends_at=ends_at,
            cursor=reader.after_seq,
            wants_cursors=reader.wants_cursors,
        )
        self.subscriptions.add(stream)
        self._begun(stream, reader)
        return stream

    def close(self, stream: OpenStream) -> None:
        """End a stream of either kind: nothing is sent on it any more."""
        if isinstance(stream, AdoptedStream):
            self._become(stream, State.CLOSED)
            del self.adopted[stream.fd]
        else:
            self.subscriptions.remove(stream)
        self.groups.leave(stream.group)
        self.bearers.remove(stream)
        self._limits.end(stream.client_key)
        if self.observer is not None:
            self.observer.closed(stream.stream_id)

    @property
    def count(self) -> int:
        """Streams of both kinds."""
        return self._limits.count

    def all(self) -> Iterator[OpenStream]:
        """Return the streams of both kinds."""
        return chain(self.adopted.values(), self.subscriptions)

    def not_in_step(self) -> Iterator[OpenStream]:
        """Return the streams that have a cursor of their own."""
        return chain(self.sendable.values(), self._blocked.values(), self.subscriptions)

    def next_for_group(self, group: Group) -> Batch | FellBehind | None:
        """Return what all members in step get next, and move their cursor behind it.

        None when they have all that there is. What each member took is reported to `took`.
        """
        if not group.in_step or self._has_all(group.cursor, self.groups.passed_seq):
            self.groups.settle(group)
            return None
        batch = self._feed.read(
            group.audience, group.cursor, self._chunk_bytes_max, through_seq=self.groups.passed_seq
        )
        if isinstance(batch, Batch):
            group.cursor = batch.seq
        return batch

    def next_for(self, stream: AdoptedStream) -> Batch | memoryview | FellBehind | None:
        """Return what a sendable stream gets next: the rest of a chunk, or a new batch.

        None when it has all that its group has, and is in step from now on.
        """
        if stream.unsent:
            return stream.unsent
        shared = self.groups.cursor_of(stream.group)
        if not self._has_all(stream.cursor, shared):
            batch = self._feed.read(
                stream.group.audience, stream.cursor, self._chunk_bytes_max, through_seq=shared
            )
            if isinstance(batch, FellBehind):
                return batch
            stream.cursor = batch.seq
            if batch.events:
                return batch
        self._fall_in(stream, shared)
        return None

    def took(
        self, stream: AdoptedStream, data: bytes | memoryview, sent_bytes: int, now: float
    ) -> None:
        """Note how much of `data`, sent on an open stream, the kernel took.

        A stream that is `ENDING` and has nothing unsent after that is to be closed.
        """
        rest_bytes = len(data) - sent_bytes
        if stream.unsent:
            stream.unsent = stream.unsent[sent_bytes:] if rest_bytes else NOTHING
            if not sent_bytes:
                stream.blocked_at, stream.slow = now, True
                ending = stream.state is State.ENDING
                self._become(stream, State.ENDING_BLOCKED if ending else State.BLOCKED)
        elif rest_bytes:
            stream.unsent = memoryview(data)[sent_bytes:]
            stream.waited_s = 0.0
            if stream.state is State.IN_STEP:
                self._become(stream, State.BEHIND)
        if stream.state is State.BEHIND and not stream.unsent:
            self._fall_in(stream, self.groups.cursor_of(stream.group))

    def room_again(self, stream: AdoptedStream) -> None:
        """Note that the kernel takes more bytes of a stream."""
        if stream.state is State.BLOCKED:
            self._become(stream, State.BEHIND)
        elif stream.state is State.ENDING_BLOCKED:
            self._become(stream, State.ENDING)

    def end(self, stream: AdoptedStream, last_words: bytes) -> None:
        """Send only the rest of a chunk and then `last_words`, once."""
        match stream.state:
            case State.BEHIND | State.IN_STEP:
                state = State.ENDING
            case State.BLOCKED:
                state = State.ENDING_BLOCKED
            case State.ENDING | State.ENDING_BLOCKED | State.CLOSED:
                return
            case _:
                assert_never(stream.state)
        if not stream.unsent:
            stream.waited_s = 0.0
        stream.unsent = memoryview(bytes(stream.unsent) + last_words)
        self._become(stream, state)

    def has_stalled(
        self, stream: AdoptedStream, since_last_s: float, now: float, timeout_s: float
    ) -> bool:
        """Return whether a stream was blocked for `timeout_s` before its chunk was through.

        `since_last_s` is for how long it is blamed, if it was blocked since the last call.
        """
        if not stream.is_blocked:
            return False
        stream.waited_s += min(since_last_s, now - stream.blocked_at)
        return stream.waited_s >= time_for(stream.unsent, self._chunk_bytes_max, timeout_s)

    def needs_heartbeat(self, stream: AdoptedStream) -> bool:
        """Return whether nothing was sent since the last call."""
        if stream.state is not State.IN_STEP:
            return False
        if not stream.quiet:
            stream.quiet = True
            return False
        stream.cursor = self.groups.cursor_of(stream.group)
        return True

    def _enter(self, reader: Reader) -> Group:
        self._limits.begin(reader.client_key)
        self._streams_begun += 1
        return self.groups.enter(reader.audience)

    def _begun(self, stream: OpenStream, reader: Reader) -> None:
        if reader.ends_at < math.inf and reader.ends_at <= stream.ends_at:
            stream.ends_at, stream.ends_for = reader.ends_at, EndReason.EXPIRED
        self.bearers.add(stream, reader)
        if self.observer is not None:
            self.observer.opened(stream.stream_id, reader)

    def _has_all(self, cursor: int, through_seq: int) -> bool:
        return cursor >= through_seq and self._feed.holds(cursor)

    def _fall_in(self, stream: AdoptedStream, shared_cursor: int) -> None:
        """Let a stream that has nothing unsent be in step, if it is where its group is."""
        if stream.cursor == shared_cursor:
            stream.slow, stream.live = False, True
            self._become(stream, State.IN_STEP)

    def _become(self, stream: AdoptedStream, state: State) -> None:
        """Change a stream's state: the only place that does."""
        assert state in FOLLOWS[stream.state], f"a stream that is {stream.state} becomes {state}"
        if stream.state is State.IN_STEP:
            stream.cursor = self.groups.cursor_of(stream.group)
        before, after = self._streams_like(stream, stream.state), self._streams_like(stream, state)
        stream.state = state
        if before is not after:
            if before is not None:
                del before[stream.fd]
            if after is not None:
                after[stream.fd] = stream

    def _streams_like(self, stream: AdoptedStream, state: State) -> dict[int, AdoptedStream] | None:
        match state:
            case State.BEHIND | State.ENDING:
                return self.sendable
            case State.IN_STEP:
                return stream.group.in_step
            case State.BLOCKED | State.ENDING_BLOCKED:
                return self._blocked
            case State.CLOSED:
                return None
            case _:
                assert_never(state)
