"""Carries one session's messages into the replicated log, on the leader only.

A few equal workers take turns. Each fetches, decodes, proposes and acknowledges; two locks, taken
in this order, keep the messages in the order of the stream. So while one batch commits, the next
is fetched and decoded, and the last one is acknowledged; nothing waits that need not, and what is
in memory is bounded by the number of workers.

The rules of this file:

- **One proposal at a time.** If a later batch could commit after an earlier one was rejected, the
  store's floor would rise above the rejected events, and they would be lost.
- **A dead letter is out of the way before anything above it is committed**: its copy would be lost
  if this node died in between.
- **Only what is committed is acknowledged**, and only the floor says where to go on in a stream
  without acknowledgements. So a dead letter at the end of a batch raises it there, too.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import trio

from noti.errors import MessageInvalid, NotiError
from noti.history.commands import AdvanceFloor, PublishBatch, encode
from noti.history.notification import Event, byte_length
from noti.ports import Clock
from noti.publishing.nats.message_headers import MESSAGE_ID
from noti.publishing.nats.outcomes import Outcomes
from noti.publishing.nats.ports import DeadLetter, SourceMessage, SourceSession
from noti.publishing.ports import Proposer
from noti.tracing.ports import Span, Step
from noti.tracing.taking import TakenTraces, end_all

MESSAGES_MAX: Final = 500
"""Messages in one fetch; beyond a few hundred, a larger batch no longer makes a commit cheaper."""

BATCH_BYTES_MAX: Final = 1024 * 1024
"""A command is closed when its events reach this. With one more event of the same size at most,
it stays well within what a log record (8 MiB) and a frame between nodes (16 MiB) may hold."""

FETCH_WAIT_S: Final = 1.0
"""How long one fetch may stay empty; it returns early when something comes."""

WORKERS: Final = 3
"""One fetches or waits with a batch, one commits, one acknowledges."""

DECODED_AT_ONCE_BYTES: Final = 64 * 1024
"""Then other tasks get a turn: 1 to 2 ms of work, whatever the decoder."""

MESSAGE_BYTES: Final = 512
"""What a message counts for there beside its payload: the work that it makes when it is empty."""


class EventOf(Protocol):
    """Makes events of messages; see `noti.publishing.nats.mapping`."""

    def __call__(self, message: SourceMessage, *, wall_ms: int, rng: random.Random) -> Event:
        """Return the event in a message; raises `MessageInvalid`."""


class _Batch(NamedTuple):
    """What one fetch brought, decoded."""

    good: list[tuple[SourceMessage, Event]]
    letters: list[DeadLetter]


class SessionReading:
    """Of one session, from its floor on."""

    def __init__(
        self,
        session: SourceSession,
        event_of: EventOf,
        proposer: Proposer,
        outcomes: Outcomes,
        clock: Clock,
        rng: random.Random,
        *,
        committed: Callable[[], None],
        traces: TakenTraces | None = None,
        messages_max: int = MESSAGES_MAX,
    ) -> None:
        """Prepare; `committed` is called after each commit."""
        self._session = session
        self._event_of = event_of
        self._proposer = proposer
        self._outcomes = outcomes
        self._clock = clock
        self._rng = rng
        self._committed = committed
        self._traces = traces or TakenTraces()
        self._messages_max = messages_max
        self._fetching = trio.Lock()
        self._committing = trio.Lock()

    async def run(self) -> None:
        """Read until something fails; raises that, in an exception group.

        *Cancellation* stops between any two steps, and acknowledges nothing that is not committed.
        """
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            async with self._fetching:
                messages = await self._session.fetch(self._messages_max, FETCH_WAIT_S)
                if not messages:
                    continue
                batch = await self._decode(messages)
                # Taken before the other is given back, so that no later batch comes first.
                await _take(self._committing)
            try:
                done = await self._commit(batch)
            finally:
                self._committing.release()
            if done:
                await self._session.ack(done)

    async def _decode(self, messages: Sequence[SourceMessage]) -> _Batch:
        batch = _Batch([], [])
        decoded_bytes, wall_ms = 0, self._clock.wall_ms()
        for message in messages:
            if decoded_bytes >= DECODED_AT_ONCE_BYTES:
                await trio.lowlevel.checkpoint()
                decoded_bytes, wall_ms = 0, self._clock.wall_ms()
            decoded_bytes += MESSAGE_BYTES + len(message.payload)
            try:
                event = self._event_of(message, wall_ms=wall_ms, rng=self._rng)
            except MessageInvalid as error:
                batch.letters.append(DeadLetter(message, str(error)))
            else:
                batch.good.append((message, event))
        return batch

    async def _commit(self, batch: _Batch) -> list[SourceMessage]:
        """Return what is committed, and has to be acknowledged."""
        session, (good, letters) = self._session, batch
        if letters:
            self._outcomes.dead_letters(session.stream, letters)
            for message, reason in letters:
                ids = message.headers.get(MESSAGE_ID, ())
                self._traces.refused(ids, f"dead letter, sequence {message.seq}: {reason}")
            await session.dead_letter(letters)
        for run in _runs(good):
            events, spans = self._traces.take(tuple([event for _, event in run]), Step.READ)
            command = PublishBatch(session.stream, events, self._clock.wall_ms())
            await self._propose(encode(command), spans, len(events))
            self._committed()
            self._outcomes.committed(len(run), run[0][0].published_ms)
        if letters and not session.acknowledges:
            last = letters[-1].message.seq
            if not good or good[-1][0].seq < last:
                await self._proposer.propose(encode(AdvanceFloor(session.stream, last)))
                self._committed()
        return [message for message, _ in good]

    async def _propose(self, command: bytes, spans: Sequence[Span], events: int) -> None:
        """Have a batch of so many events committed, of which these are traced."""
        span = self._traces.commit(spans, events)
        problem = "Cancelled"
        try:
            await self._proposer.propose(command)
            problem = ""
        except NotiError as error:
            problem = type(error).__name__
            raise
        finally:
            if span is not None:
                span.end(problem)
            end_all(spans, problem)


async def _take(lock: trio.Lock) -> None:
    """Acquire a lock, at once if it is free: each turn of the scheduler is a part of a delay."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


def _runs(
    pairs: Sequence[tuple[SourceMessage, Event]],
) -> Iterator[Sequence[tuple[SourceMessage, Event]]]:
    """Cut into runs whose events have about `BATCH_BYTES_MAX`, in order."""
    start = size_bytes = 0
    for end, (_, event) in enumerate(pairs, 1):
        data, topics = event.data, event.topics
        size_bytes += len(data) if data.isascii() else byte_length(data)
        # Headers may name a thousand topics, a megabyte of them.
        size_bytes += byte_length(topics[0]) if len(topics) == 1 else sum(map(byte_length, topics))
        if size_bytes >= BATCH_BYTES_MAX:
            yield pairs[start:end]
            start, size_bytes = end, 0
    if start < len(pairs):
        yield pairs[start:]
