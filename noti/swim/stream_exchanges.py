"""Exchanges over TCP: full states, and pings of members that answer none over UDP."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, assert_never

import trio

from noti.address import Address, format_address
from noti.errors import MessageInvalid, PeerUnavailable
from noti.swim.core.events import (
    Event,
    ExchangeEnded,
    ExchangeState,
    PacketReceived,
    PingByStream,
    StateReceived,
    StreamPingAnswered,
)
from noti.swim.core.messages import Ack, Failure, Ping, PushPull, StreamMessage, User
from noti.swim.core.sealing import Sealing
from noti.swim.core.stream_layers import StreamReader, encode_answer, encode_question
from noti.swim.ports import GossipNetwork
from noti.swim.reporting import GossipReporter


class _OwnState(Protocol):
    def state(self, *, join: bool) -> PushPull: ...

    def why_refused(self, state: PushPull) -> str | None: ...

    @property
    def has_left(self) -> bool: ...


class StreamExchanges:
    """The TCP side of one node's gossip, both as the one that dials and as the one that answers."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        core: _OwnState,
        handle: Callable[[Event], None],
        network: GossipNetwork,
        sealing: Sealing,
        timeout_s: float,
        reporter: GossipReporter,
        rng: random.Random,
    ) -> None:
        """`core` has our full state, `handle` gives it what was received."""
        self._name = name
        self._address = address
        self._core = core
        self._handle = handle
        self._network = network
        self._sealing = sealing
        self._timeout_s = timeout_s
        self._reporter = reporter
        self._rng = rng

    async def carry_out(self, order: ExchangeState | PingByStream) -> None:
        """Do what the core orders, within its time limit; never raises for what peers do."""
        match order:
            case ExchangeState():
                await self._exchange(order)
            case PingByStream():
                await self._ping(order)
            case _:
                assert_never(order)

    async def serve(self, stream: trio.abc.Stream, source: Address) -> None:
        """Answer the one message of a peer's stream, and close it; never raises for it."""
        reader = StreamReader(self._sealing, answer=False)
        async with stream:
            with trio.move_on_after(self._timeout_s), suppress(trio.BrokenResourceError):
                answer: StreamMessage | None
                try:
                    question = await _read(stream, reader)
                    answer = self._answer(question, source, reader)
                except MessageInvalid as error:
                    self._reporter.reject_invalid(error, "stream", source[0])
                    answer = Failure(str(error)) if reader.is_gossip else None
                if answer is not None:
                    await stream.send_all(self._encode(answer, reader))
                    if isinstance(answer, Failure):
                        await _read_on(stream)

    async def _exchange(self, order: ExchangeState) -> None:
        reached: Address | None = None
        place = format_address(order.to)
        reason = "no answer in time"
        with trio.move_on_after(self._timeout_s):
            try:
                reached = await self._exchange_with_one_of(
                    await self._network.resolve(order.to), order
                )
            except MessageInvalid as error:
                self._reporter.count_invalid(error, "stream")
                reason = str(error)
            except (PeerUnavailable, trio.BrokenResourceError) as error:
                reason = str(error) or "connection lost"
        if reached is None:
            self._reporter.warn("gossip peer does not answer", place, reason=reason)
        self._handle(ExchangeEnded(order.to, order.join, reached))

    async def _exchange_with_one_of(
        self, addresses: list[Address], order: ExchangeState
    ) -> Address:
        others = [address for address in addresses if address != self._address]
        if not others:
            return self._address
        address = self._rng.choice(others)
        reader = StreamReader(self._sealing, answer=True)
        async with await self._network.open_stream(address) as stream:
            await stream.send_all(encode_question(self._core.state(join=order.join), self._sealing))
            answer = await _read(stream, reader)
        match answer:
            case PushPull():
                self._merge(StateReceived(answer, address, dialled=True), address, reader)
            case Failure(reason):
                raise PeerUnavailable(f"rejected by the other side: {reason}")
            case _:
                raise MessageInvalid("an answer that is no state")
        return address

    async def _ping(self, order: PingByStream) -> None:
        ping = Ping(order.sequence, order.node, self._address, self._name)
        with trio.move_on_after(order.timeout_s):
            try:
                async with await self._network.open_stream(order.to) as stream:
                    await stream.send_all(encode_question(ping, self._sealing))
                    answer = await _read(stream, StreamReader(self._sealing, answer=True))
            except (PeerUnavailable, MessageInvalid, trio.BrokenResourceError):
                return  # as good as no answer
            match answer:
                case Ack(sequence) if sequence == order.sequence:
                    self._handle(StreamPingAnswered(sequence))
                case Failure(reason):
                    place = format_address(order.to)
                    self._reporter.warn("gossip peer rejects our ping", place, reason=reason)
                case _:
                    pass

    def _answer(
        self, question: StreamMessage, source: Address, reader: StreamReader
    ) -> StreamMessage | None:
        """Take a question and return the answer, if it gets one; raises `MessageInvalid`."""
        match question:
            case Ping(sequence, target):
                answers = target in ("", self._name) and not self._core.has_left
                return Ack(sequence, None) if answers else None
            case PushPull(join):
                refused = self._core.why_refused(question)
                # As it is before theirs counts, which they know anyway.
                answer = self._core.state(join=join) if refused is None else Failure(refused)
                self._merge(StateReceived(question, source), source, reader)
                return answer
            case User():
                self._handle(PacketReceived((question,), source))
                return None
            case Ack() | Failure():
                raise MessageInvalid("an answer where a question belongs")
            case _:
                assert_never(question)

    def _merge(self, received: StateReceived, source: Address, reader: StreamReader) -> None:
        for reason in reader.invalid_records:
            self._reporter.reject("record", source[0], f"a node in a state: {reason}")
        self._handle(received)

    def _encode(self, answer: StreamMessage, reader: StreamReader) -> bytes:
        # Whoever asks plainly may be unable to read why not, if it is sealed.
        sealed = reader.sealed or (self._sealing.sends_sealed and not isinstance(answer, Failure))
        return encode_answer(answer, self._sealing, sealed=sealed)


async def _read(stream: trio.abc.ReceiveStream, reader: StreamReader) -> StreamMessage:
    """Return the one message of a stream; raises `MessageInvalid` when it ends before."""
    async for data in stream:
        for message in reader.feed(bytes(data)):
            if message is not None:
                return message
            await trio.lowlevel.checkpoint()
    raise MessageInvalid("a stream that ended before its message did")


async def _read_on(stream: trio.abc.Stream) -> None:
    """Read until the other side closes: closing before would discard our answer on its way."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
    async for _ in stream:
        pass
