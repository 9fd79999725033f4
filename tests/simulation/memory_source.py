"""An event stream in memory: the `Source` of the simulator.

Enters: published messages; faults. Leaves: what JetStream would show of a stream of either kind.
Never: threads, asyncio, sockets, real time.

All nodes of a simulation share one `MemoryStream`. As with JetStream, consumers belong to the
server. If it acknowledges, there is one durable consumer (as on a work queue): sessions of two
nodes compete for it, and the one that began last has made it anew. Otherwise (retention by limits)
each session has one of its own, behind the sequence that it named, and messages stay.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from noti.errors import SourceUnavailable
from noti.ports import Clock
from noti.publishing.nats.ports import NO_HEADERS, DeadLetter, Headers, SourceLag, SourceMessage
from tests.simulation.clocks import MachineClock


@dataclass(frozen=True, slots=True)
class _Delivery:
    consumer_seq: int
    message: SourceMessage


class _Consumer:
    """The server's side of a consumer."""

    def __init__(self, pending: deque[SourceMessage]) -> None:
        self.pending = pending
        self.delivered = 0

    def take(self) -> _Delivery:
        self.delivered += 1
        return _Delivery(self.delivered, self.pending.popleft())


class MemoryStream:
    """The server: a stream and its consumers."""

    def __init__(
        self,
        clock: Clock,
        trace: Callable[[str], None] = lambda line: None,
        *,
        acknowledges: bool = True,
    ) -> None:
        self.acknowledges = acknowledges
        """Whether messages leave when they are acknowledged."""
        self.dead_letters: dict[str, DeadLetter] = {}
        """Copies by their ids: a repeated one is one."""
        self._clock = clock
        self._trace = trace
        self._generation = 1
        self._last_seq = 0
        self._messages: dict[int, SourceMessage] = {}
        self._ids: dict[str, int] = {}
        self._consumer = _Consumer(deque())
        self._own_consumers: list[_Consumer] = []
        self._up = True
        self._changed = trio.Event()
        self.removed: Callable[[SourceMessage], None] = lambda message: None
        """Hears what was acknowledged or terminated."""
        self.loses: Callable[[], bool] = lambda: False
        """Whether an acknowledgement is lost on its way; the message comes again."""
        self._delivered: set[int] = set()
        self.happened: Callable[[str], None] = lambda fault: None
        """Hears of each fault when it takes effect."""

    @property
    def clock(self) -> Clock:
        """The clock that fetches wait on."""
        return self._clock

    @property
    def identity(self) -> str:
        """What sessions report as the stream."""
        return self.identities[-1]

    @property
    def identities(self) -> list[str]:
        """All that it ever had, oldest first."""
        return [f"memory@{number}" for number in range(1, self._generation + 1)]

    @property
    def up(self) -> bool:
        """Whether the server can be reached."""
        return self._up

    @property
    def last_seq(self) -> int:
        """The newest sequence."""
        return self._last_seq

    @property
    def unacknowledged(self) -> list[int]:
        """Sequences that are still in the stream."""
        return sorted(self._messages)

    @property
    def consumer(self) -> _Consumer:
        """The durable consumer as it is now."""
        return self._consumer

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str | None = None,
        headers: Headers = NO_HEADERS,
    ) -> int:
        """Append a message and return its sequence; the same id again returns the first one's."""
        if message_id is not None and message_id in self._ids:
            return self._ids[message_id]
        self._last_seq += 1
        message = SourceMessage(
            self._last_seq,
            subject,
            payload,
            headers if message_id is None else {**headers, "nats-msg-id": [message_id]},
            published_ms=self._clock.wall_ms(),
        )
        self._messages[self._last_seq] = message
        for consumer in (self._consumer, *self._own_consumers):
            consumer.pending.append(message)
        if message_id is not None:
            self._ids[message_id] = self._last_seq
        self._notify()
        return self._last_seq

    def stop(self) -> None:
        """Begin an outage: every session breaks, nobody can open one."""
        self._trace("source stopped")
        self._up = False
        self._notify()

    def start(self) -> None:
        """End the outage; messages and consumer are as they were, sessions are not."""
        self._trace("source started")
        self.happened("the source was restarted")
        self._up = True
        self._notify()

    def recreate(self) -> None:
        """Delete the stream and make it again: sequences start at 1, the identity is new."""
        self._generation += 1
        self._last_seq = 0
        self._messages.clear()
        self._delivered.clear()
        self._ids.clear()
        self._consumer = _Consumer(deque())
        self._own_consumers.clear()
        self._notify()

    def begin(self, after_seq: int = 0) -> _Consumer:
        """Make the durable consumer anew, which delivers all there is; or one more, for a session.

        That one delivers what is behind `after_seq`.
        """
        if self.acknowledges:
            self._consumer = _Consumer(deque(self.pending()))
            self._notify()
            return self._consumer
        consumer = _Consumer(deque(one for one in self.pending() if one.seq > after_seq))
        self._own_consumers.append(consumer)
        return consumer

    def end(self, consumer: _Consumer | None) -> None:
        """Delete the consumer of a session, if it had one of its own."""
        if consumer in self._own_consumers:
            self._own_consumers.remove(consumer)

    def is_there(self, consumer: _Consumer | None) -> bool:
        """Whether this consumer was not deleted."""
        return consumer is self._consumer or consumer in self._own_consumers

    def interrupt(self) -> None:
        """Deliver again what is not acknowledged; sessions with consumers of their own lose them.

        As when an operator deletes consumers, or a server that had them in memory restarts.
        """
        self._own_consumers.clear()
        self.begin() if self.acknowledges else self._notify()

    def remove(self, sequence: int) -> None:
        """Drop a message that was acknowledged or terminated."""
        message = self._messages.get(sequence)
        if message is not None:
            self.removed(message)
            if not self.acknowledges:
                return
            if self.loses():
                self.happened("an acknowledgement was lost")
            else:
                del self._messages[sequence]

    def note_delivery(self, sequence: int) -> None:
        """Remember that a reader has got this message."""
        if sequence in self._delivered:
            self.happened("a message was delivered again")
        self._delivered.add(sequence)

    def pending(self) -> list[SourceMessage]:
        """Return all that is in the stream: on a work queue, what is not acknowledged."""
        return [self._messages[seq] for seq in sorted(self._messages)]

    async def wait_changed(self, deadline: float) -> None:
        """Return at the next change, or at `deadline`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_event, self._changed, nursery.cancel_scope)
            await self._clock.sleep_until(deadline)
            nursery.cancel_scope.cancel()

    async def _wait_event(self, changed: trio.Event, scope: trio.CancelScope) -> None:
        await changed.wait()
        scope.cancel()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemorySource:
    """One node's way to the stream. `reachable` is this node's own link."""

    def __init__(self, stream: MemoryStream, clock: MachineClock | None = None) -> None:
        self._stream = stream
        self.clock = clock or MachineClock()
        self.reachable = True
        self.opens_in_s = 0.0
        self.acks_in_s = 0.0
        self.opening = False
        """Whether somebody waits for a session now."""
        self.stumbles: Callable[[str], None] = lambda at: None
        """Called at each await with what is done there; may raise anything, as a library does."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["MemorySession"]:
        session = None
        try:
            await self._connect()
            session = MemorySession(self, self._stream)
            session.check()
            yield session
        finally:
            if session is not None:
                session.close()
            self.stumbles("close")

    async def _connect(self) -> None:
        self.stumbles("open")
        self.opening = True
        try:
            await trio.lowlevel.checkpoint()
            await self.clock.sleep(self.opens_in_s)
        except trio.Cancelled:
            self._stream.happened("a session was cancelled while it opened")
            raise
        finally:
            self.opening = False
        self.stumbles("open")


class MemorySession:
    """One connection to the stream; it breaks for good at the first trouble."""

    def __init__(self, source: MemorySource, stream: MemoryStream) -> None:
        self._source = source
        self._stream = stream
        self._identity = stream.identity
        self._after_seq = 0
        self._consumer: _Consumer | None = None
        self._consumer_seq = 0
        self._broken: str | None = None
        self._unsettled: dict[int, int] = {}

    @property
    def stream(self) -> str:
        return self._identity

    @property
    def acknowledges(self) -> bool:
        return self._stream.acknowledges

    def close(self) -> None:
        """Leave nothing behind on the server."""
        self._stream.end(self._consumer)

    def check(self) -> None:
        """Raise when the connection is, or has been, lost."""
        if not self._stream.up or not self._source.reachable:
            self._broken = "the connection broke"
        elif self._stream.identity != self._identity:
            self._broken = "the stream was made again"
        if self._broken is not None:
            raise SourceUnavailable(self._broken)

    async def _step(self, at: str) -> None:
        """Where the real one waits: the process may be stopped here, and the library fail."""
        with self._stumbling_when_cancelled(at):
            await trio.lowlevel.checkpoint()
            await self._source.clock.thawed()
        self._source.stumbles(at)
        self.check()

    @contextmanager
    def _stumbling_when_cancelled(self, at: str) -> Iterator[None]:
        try:
            yield
        except trio.Cancelled:
            self._source.stumbles(at)
            raise

    async def begin(self, after_seq: int) -> None:
        await self._step("begin")
        self._stream.end(self._consumer)
        self._consumer = self._stream.begin(after_seq)
        self._after_seq = after_seq
        self._consumer_seq = 0
        self._unsettled.clear()
        self._source.stumbles("begin")

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        await self._step("fetch")
        clock = self._stream.clock
        deadline = clock.now() + wait_s
        while True:
            await self._source.clock.thawed()
            self.check()
            messages = self._take(messages_max)
            if messages:
                return messages
            self._check_place()
            if clock.now() >= deadline:
                return []
            with self._stumbling_when_cancelled("fetch"):
                await self._stream.wait_changed(deadline)
            self._source.stumbles("fetch")

    async def ack(self, messages: Sequence[SourceMessage]) -> None:
        if self._source.acks_in_s:
            await self._source.clock.sleep(self._source.acks_in_s)
        await self._settle("ack", messages)

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self._stream.dead_letters[f"{self._identity}:{letter.message.seq}"] = letter
        await self._settle("dead_letter", [letter.message for letter in letters])

    async def _settle(self, word: str, messages: Sequence[SourceMessage]) -> None:
        await self._step(word)
        for message in messages:
            self._stream.remove(message.seq)
            self._unsettled.pop(message.seq, None)
        self._source.stumbles(word)

    def lag(self) -> SourceLag:
        oldest_ms = next(iter(self._unsettled.values()), None)
        pending = len(self._consumer.pending) if self._consumer is not None else 0
        return SourceLag(pending, len(self._unsettled), oldest_ms)

    def _take(self, messages_max: int) -> list[SourceMessage]:
        consumer = self._consumer if not self.acknowledges else self._stream.consumer
        assert consumer is not None, "begin comes before fetch"
        messages: list[SourceMessage] = []
        while consumer.pending and len(messages) < messages_max:
            delivery = consumer.take()
            if delivery.consumer_seq != self._consumer_seq + 1:
                self._broken = "messages were taken by another reader"
                raise SourceUnavailable(self._broken)
            self._consumer_seq = delivery.consumer_seq
            self._stream.note_delivery(delivery.message.seq)
            if delivery.message.seq > self._after_seq:
                messages.append(delivery.message)
                self._unsettled[delivery.message.seq] = delivery.message.published_ms
            else:
                self._stream.remove(delivery.message.seq)
        return messages

    def _check_place(self) -> None:
        consumer = self._consumer
        assert consumer is not None, "begin comes before fetch"
        if not self._stream.is_there(consumer) or consumer.delivered != self._consumer_seq:
            self._broken = "messages were taken by another reader"
            raise SourceUnavailable(self._broken)
