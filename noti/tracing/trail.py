"""Follows events from their being applied to the end of the pass that sent them to streams.

Of all events of late, it is known where in the log they are. Spans are recorded of those that carry
a trace, and lines logged of a share of them: the same ones at all nodes, chosen by their ids.
"""

import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from noti.history.notification import Event, Notification
from noti.tracing.ports import Attributes, Span, Step, Tracer

log = structlog.get_logger("noti.tracing")

COMMANDS_MAX: Final = 10_000
"""Commands of which is known where they were applied: as many seconds at least as there are
thousands of events in one; 1 MB."""
FOLLOWED_MAX: Final = 10_000
"""Events, or batches with spans, that wait for the end of a pass; beyond that nobody could read the
lines either."""


class AppliedCommand(NamedTuple):
    """A command that made events visible."""

    first_seq: int
    last_seq: int
    log_index: int
    applied_ms: int
    """Wall time at which this process applied it, ms since 1970."""
    source_seq: int
    """That of the first event, if all of the command became visible, and in a row; otherwise 0."""

    def source_seq_of(self, seq: int) -> int | None:
        """Return the sequence of one of its events in its stream, if that is known."""
        return self.source_seq + seq - self.first_seq if self.source_seq else None


class EventStreams(Protocol):
    """The streams of this process: `noti.streams.hub.Hub`."""

    @property
    def clients(self) -> int:
        """How many are open."""

    @property
    def sending(self) -> bool:
        """Whether they are sent events."""

    def audience_of(self, notification: Notification) -> int:
        """Return how many of them are for an event."""


class _Followed(NamedTuple):
    """An event of which there is to be a line."""

    notification: Notification
    log_index: int
    source_seq: int


class _Delivery(NamedTuple):
    """A batch of which there is a span."""

    last_seq: int
    span: Span
    traced: list[Notification]


class EventTrail:
    """Of one process."""

    def __init__(
        self,
        wall_ms: Callable[[], int],
        streams: EventStreams | None = None,
        *,
        tracer: Tracer | None = None,
        log_share: float = 0.0,
    ) -> None:
        """Begin; `log_share`, 0 to 1, is the share of events of which there are log lines.

        Without `streams`, nothing is recorded or logged: other processes do that.
        """
        self._wall_ms = wall_ms
        self._streams = streams
        self._tracer = tracer
        self.log_share(log_share)
        self._commands: deque[AppliedCommand] = deque(maxlen=COMMANDS_MAX)
        self._lines: deque[_Followed] = deque(maxlen=FOLLOWED_MAX)
        self._deliveries: deque[_Delivery] = deque(maxlen=FOLLOWED_MAX)

    def log_share(self, log_share: float) -> None:
        """Log another share of events from now on."""
        self._log_below = round(log_share * 2**32)
        self._follows = self._streams is not None and (self._tracer is not None or log_share > 0)

    def applied(
        self, log_index: int, visible: Sequence[Notification], published: Sequence[Event]
    ) -> None:
        """Note what a command has made visible; `published` are the events in it, shown or not."""
        in_a_row = (
            len(visible) == len(published)
            and published[-1].source_seq - published[0].source_seq == len(published) - 1
        )
        first = published[0].source_seq if in_a_row else 0
        now_ms, first_seq, last_seq = self._wall_ms(), visible[0].seq, visible[-1].seq
        self._commands.append(AppliedCommand(first_seq, last_seq, log_index, now_ms, first))
        if not self._follows or self._streams is None or not self._streams.sending:
            return  # before that, a node that starts applies again what others have seen long ago
        self._follow(log_index, visible, published)
        if not self._streams.clients:
            self.passed(last_seq)  # no pass follows

    def _follow(
        self, log_index: int, visible: Sequence[Notification], published: Sequence[Event]
    ) -> None:
        traced, traces = [], []
        for notification, event in _pairs(visible, published):
            if event.trace:
                traced.append(notification)
                traces.append(event.trace)
            if zlib.crc32(event.id.encode(errors="replace")) < self._log_below:
                self._lines.append(_Followed(notification, log_index, event.source_seq))
        if not traces or self._tracer is None:
            return
        about: dict[str, str | int] = {
            "messaging.system": "noti",
            "messaging.batch.message_count": len(traces),
            "noti.log_index": log_index,
        }
        if len(traced) == 1:
            about |= {"messaging.message.id": traced[0].id, "noti.seq": traced[0].seq}
        span = self._tracer.begin_batch(Step.DELIVER, traces, about)
        if span is not None:
            self._deliveries.append(_Delivery(visible[-1].seq, span, traced))

    def passed(self, through_seq: int) -> None:
        """Note that streams in step were sent what they see of all events up to this one."""
        streams = self._streams
        if streams is None:
            return
        while self._lines and self._lines[0].notification.seq <= through_seq:
            self._log(streams, *self._lines.popleft())
        while self._deliveries and self._deliveries[0].last_seq <= through_seq:
            _, span, traced = self._deliveries.popleft()
            reached: Attributes = {"noti.streams": sum(map(streams.audience_of, traced))}
            span.end(attributes=reached)

    def command_of(self, seq: int) -> AppliedCommand | None:
        """Return the command that made an event visible; None if that is too long ago."""
        place = bisect_left(self._commands, seq, key=lambda command: command.last_seq)
        if place < len(self._commands) and self._commands[place].first_seq <= seq:
            return self._commands[place]
        return None

    def _log(
        self, streams: EventStreams, notification: Notification, log_index: int, source_seq: int
    ) -> None:
        log.info(
            "event",
            id=notification.id,
            source_seq=source_seq or None,
            log_index=log_index,
            seq=notification.seq,
            streams=streams.audience_of(notification),
            delay_ms=self._wall_ms() - notification.created_ms,
        )


def _pairs(
    visible: Iterable[Notification], published: Iterable[Event]
) -> Iterator[tuple[Notification, Event]]:
    """Yield what became visible, with the event that it was: they are in the same order."""
    events = iter(published)
    for notification in visible:
        for event in events:
            if event[1:8] == notification[1:8]:
                yield notification, event
                break
