"""Carries events from the source into the replicated log, on the leader only.

No message is acknowledged before its event is on a majority's disks.

The rule of this file: **one proposal at a time**. While it commits, the next messages are fetched,
but they are proposed only after it succeeded. If a later batch could commit after an earlier one
was rejected, the store's floor would rise above the rejected events, and they would be lost.

Any failure drops the session, and the next one starts again from the floor. What was committed
without an ack comes again and is dropped by the store.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import structlog
import trio
from prometheus_client import Counter

from noti.backoff import Backoff
from noti.errors import (
    MessageInvalid,
    NotLeader,
    Overloaded,
    ProposalUncertain,
    SourceUnavailable,
    Unavailable,
    leaves_of,
)
from noti.history.commands import PublishBatch, encode
from noti.history.notification import Event, byte_length
from noti.optional import FAILURES
from noti.ports import Clock
from noti.publishing.nats.metrics import Gauges, State
from noti.publishing.nats.ports import DeadLetter, Source, SourceMessage, SourceSession
from noti.publishing.ports import Proposer

log = structlog.get_logger("noti.publishing")

INVALID = Counter("noti_ingest_invalid_total", "Messages that did not parse and were terminated")
PUBLISHED = Counter(
    "noti_ingest_published_total", "Messages whose event was committed and acknowledged"
)

MESSAGES_MAX: Final = 500
"""Messages in one fetch; beyond a few hundred, a larger batch no longer makes a commit cheaper."""

BATCH_BYTES_MAX: Final = 1024 * 1024
"""A command is closed when its events reach this. With one more event of the same size at most,
it stays well within what a log record (8 MiB) and a frame between nodes (16 MiB) may hold."""

NO_SOURCE: Final = "no source of events: nats_url is not set; events come by HTTP and gRPC only"
"""What a node without one says of it."""

FETCH_WAIT_S: Final = 1.0
"""How long one fetch may stay empty; it returns early when something comes."""

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
"""Waits between attempts double from the first to the last, each drawn from its upper half."""


class EventOf(Protocol):
    """Makes events of messages; see `noti.publishing.nats.mapping`."""

    def __call__(self, message: SourceMessage, *, wall_ms: int, rng: random.Random) -> Event:
        """Return the event in a message; raises `MessageInvalid`."""


class Bridge:
    """Reads while this node leads."""

    def __init__(
        self,
        source: Source,
        event_of: EventOf,
        proposer: Proposer,
        floor: Callable[[str], int],
        clock: Clock,
        rng: random.Random,
        *,
        messages_max: int = MESSAGES_MAX,
    ) -> None:
        """`floor` returns the store's floor for a stream identity, on this node, now."""
        self._source = source
        self._event_of = event_of
        self._proposer = proposer
        self._floor = floor
        self._clock = clock
        self._rng = rng
        self._messages_max = messages_max
        self._gauges = Gauges(clock)
        self._stream: str | None = None
        self._invalid = 0
        self._published = 0
        self._backoff = Backoff(rng, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MAX_S)
        # Stream and sequence of the last invalid message, so that it is logged once.
        self._last_invalid: tuple[str, int] = ("", 0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bridge until cancelled; started at once, whether or not the source can be reached.

        An unreachable source never ends this: it is retried, and `status` says why.
        *Cancellation*, and the loss of leadership, stop between any two steps without an ack.
        """
        task_status.started()
        while True:
            if not self._proposer.is_ready_leader():
                self._enter("standby")
                await self._proposer.wait_leadership_changed()
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._lead)
                # Also when it is lost and won again at once: the new term starts from its floor.
                await self._proposer.wait_leadership_changed()
                nursery.cancel_scope.cancel()

    def failed(self, problem: str) -> None:
        """Note that `run` ended by an error that nobody foresaw, and will be run again."""
        self._enter("failed", problem)

    def status(self) -> dict[str, object]:
        """Return what `/status` shows: state, last error, since when, stream identity, counts."""
        return {
            **self._gauges.status(),
            "stream": self._stream,
            "invalid": self._invalid,
            "published": self._published,
        }

    def _enter(self, state: State, error: str | None = None) -> None:
        self._gauges.enter(state, error)

    async def _lead(self) -> None:
        """Open session after session until cancelled."""
        self._backoff.succeeded()
        logged = ""
        while True:
            started = self._clock.now()
            failure = await self._use_session()
            if self._clock.now() - started > BACKOFF_MAX_S:
                # It worked for a while: this is a new trouble, not the old one going on.
                self._backoff.succeeded()
            pause_s = self._backoff.failed()
            failures = self._backoff.failures
            self._enter("waiting", str(failure))
            if failures == 1 or str(failure) != logged:  # an outage may take days
                log.warning("reading stopped", error=str(failure), failures=failures)
            logged = str(failure)
            if isinstance(failure, SourceUnavailable):
                FAILURES.labels("source").inc()
            if isinstance(failure, ProposalUncertain) and failures == 1:
                continue
            await self._clock.sleep_until(self._clock.now() + pause_s)

    async def _use_session(self) -> Unavailable:
        """Read until something fails, and return what."""
        failure: BaseException | None = None
        try:
            self._enter("connecting", self._gauges.error)
            async with self._source.open() as session:
                self._stream = session.stream
                await session.begin(self._floor(session.stream))
                self._enter("reading")
                log.info("reading events", stream=session.stream)
                with self._gauges.reading(session):
                    await self._read(session)
        except* (SourceUnavailable, NotLeader, Overloaded, ProposalUncertain) as group:
            failure = leaves_of(group)[0]
        assert isinstance(failure, Unavailable), "reading ends only by an error"
        return failure

    async def _read(self, session: SourceSession) -> None:
        """Fetch and commit, overlapping; ends only by an error."""
        messages = await session.fetch(self._messages_max, FETCH_WAIT_S)
        while True:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit, session, messages)
                messages = await session.fetch(self._messages_max, FETCH_WAIT_S)

    async def _commit(self, session: SourceSession, messages: Sequence[SourceMessage]) -> None:
        """Propose what parses, acknowledge what was committed, terminate the rest."""
        good: list[tuple[SourceMessage, Event]] = []
        letters: list[DeadLetter] = []
        for message in messages:
            try:
                event = self._event_of(message, wall_ms=self._clock.wall_ms(), rng=self._rng)
            except MessageInvalid as error:
                self._count_invalid(session.stream, message, error)
                letters.append(DeadLetter(message, str(error)))
            else:
                good.append((message, event))
        if letters:
            await session.dead_letter(letters)
        for batch in _batches(good):
            events = tuple(event for _, event in batch)
            command = PublishBatch(session.stream, events, self._clock.wall_ms())
            await self._proposer.propose(encode(command))
            await session.ack([message for message, _ in batch])
            self._backoff.succeeded()
            self._published += len(batch)
            PUBLISHED.inc(len(batch))

    def _count_invalid(self, stream: str, message: SourceMessage, error: MessageInvalid) -> None:
        known_stream, known_seq = self._last_invalid
        if stream == known_stream and message.seq <= known_seq:
            return
        self._last_invalid = (stream, message.seq)
        self._invalid += 1
        INVALID.inc()
        log.warning(
            "terminated a message that does not parse",
            stream=stream,
            seq=message.seq,
            subject=message.subject,
            error=str(error),
        )


def _batches(
    pairs: Sequence[tuple[SourceMessage, Event]],
) -> Iterator[list[tuple[SourceMessage, Event]]]:
    """Cut into runs whose events have about `BATCH_BYTES_MAX`, in order."""
    batch: list[tuple[SourceMessage, Event]] = []
    batch_bytes = 0
    for pair in pairs:
        batch.append(pair)
        event = pair[1]  # headers may name a thousand topics, a megabyte of them
        batch_bytes += byte_length(event.data) + sum(map(byte_length, event.topics))
        if batch_bytes >= BATCH_BYTES_MAX:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def source_status(bridges: Mapping[str, Bridge]) -> dict[str, object]:
    """Return what `/status` shows of the source: the first stream in trouble, and all of them.

    `bridges` are by the name of the stream.
    """
    streams = [{"name": name, **bridge.status()} for name, bridge in bridges.items()]
    if not streams:
        return {"state": "none", "text": NO_SOURCE}
    first = next((stream for stream in streams if stream["error"] is not None), streams[0])
    return {**first, "streams": streams}
