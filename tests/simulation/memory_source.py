"""One node's way to an event stream in memory: the `Source` of the simulator.

Enters: a `MemoryStream`, faults. Leaves: what noti's own source makes of JetStream.
Never: threads, asyncio, sockets, real time.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio
from nats.js import api

from noti.errors import SourceUnavailable
from noti.publishing.nats.expiry import Expiry
from noti.publishing.nats.ports import DeadLetter, SourceLag, SourceMessage
from noti.publishing.nats.settings import NatsSettings
from tests.simulation.clocks import MachineClock
from tests.simulation.memory_stream import Consumer, MemoryStream

ALL = ">"


class MemorySource:
    """One node's way to the stream. `reachable` is this node's own link."""

    def __init__(self, stream: MemoryStream, clock: MachineClock | None = None) -> None:
        self._stream = stream
        self.clock = clock or MachineClock()
        self.expiry = Expiry(NatsSettings(stream=stream.name, subjects=(ALL,)))
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
        self._consumer: Consumer | None = None
        self._consumer_seq = self._stream_seq = 0
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
        self._consumer_seq = self._stream_seq = 0
        self._unsettled.clear()
        if self._stream.retention == "interest":
            await self._step("begin")  # who dies here leaves the older ones to the next
            self._stream.end_before(self._consumer)
        if not self.acknowledges:
            self._source.expiry.begin(self._identity, self._info(), after_seq)
        self._source.stumbles("begin")

    def _info(self) -> api.StreamInfo:
        stream = self._stream
        config = api.StreamConfig(name=stream.name, subjects=[ALL])
        state = api.StreamState(0, 0, stream.first_seq, stream.last_seq, 0)
        return api.StreamInfo(config, state)

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        await self._step("fetch")
        clock = self._stream.clock
        deadline = clock.now() + wait_s
        while True:
            await self._source.clock.thawed()
            self.check()
            messages = self._take(messages_max)
            if not self.acknowledges:
                self._source.expiry.note(messages)
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
            self._stream.acknowledge(self._consumer, message.seq)
            self._unsettled.pop(message.seq, None)
        self._source.stumbles(word)

    def lag(self) -> SourceLag:
        oldest_ms = next(iter(self._unsettled.values()), None)
        pending = len(self._consumer.pending) if self._consumer is not None else 0
        return SourceLag(pending, len(self._unsettled), oldest_ms)

    def _place(self) -> Consumer:
        """Return what is asked for messages: on a work queue, whoever has the name."""
        assert self._consumer is not None, "begin comes before fetch"
        if self._stream.retention == "workqueue":
            return self._stream.consumer
        if not self._stream.is_there(self._consumer):
            self._broken = "the consumer is gone"
            raise SourceUnavailable(self._broken)
        return self._consumer

    def _take(self, messages_max: int) -> list[SourceMessage]:
        consumer = self._place()
        messages: list[SourceMessage] = []
        while consumer.pending and len(messages) < messages_max:
            consumer_seq, message = consumer.take()
            self._check_order(consumer_seq, message.seq)
            self._consumer_seq, self._stream_seq = consumer_seq, message.seq
            self._stream.note_delivery(message.seq)
            if message.seq > self._after_seq:
                messages.append(message)
                self._unsettled[message.seq] = message.published_ms
            else:
                self._stream.acknowledge(consumer, message.seq)
        return messages

    def _check_order(self, consumer_seq: int, stream_seq: int) -> None:
        if consumer_seq != self._consumer_seq + 1:
            self._stream.happened("messages were taken by another reader")
            self._broken = "messages were taken by another reader"
        elif stream_seq <= self._stream_seq:
            self._stream.happened("a message came out of order")
            self._broken = "a message came out of order"
        if self._broken is not None:
            raise SourceUnavailable(self._broken)

    def _check_place(self) -> None:
        consumer = self._consumer
        assert consumer is not None, "begin comes before fetch"
        if not self._stream.is_there(consumer) or consumer.delivered != self._consumer_seq:
            self._broken = "messages were taken by another reader"
            raise SourceUnavailable(self._broken)
