"""Exchanges over TCP: full states, and pings of members that answer none over UDP."""

import random
from collections.abc import Callable
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
from noti.swim.core.streams import StreamDecoder, encode_stream
from noti.swim.ports import GossipNetwork
from noti.swim.reporting import GossipReporter


class _State(Protocol):
    def __call__(self, *, join: bool) -> PushPull: ...


class StreamExchanges:
    """The TCP side of one node's gossip, both as the one that dials and as the one that answers."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        state: _State,
        handle: Callable[[Event], None],
        network: GossipNetwork,
        timeout_s: float,
        reporter: GossipReporter,
        rng: random.Random,
    ) -> None:
        """`state` returns our full state, `handle` gives the core what was received."""
        self._name = name
        self._address = address
        self._state = state
        self._handle = handle
        self._network = network
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

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer the one message of a peer's stream, and close it; never raises for it."""
        async with stream:
            try:
                with trio.move_on_after(self._timeout_s):
                    await self._answer(stream, await _read(stream))
            except MessageInvalid as error:
                self._reporter.reject("stream", "streams", str(error))
            except trio.BrokenResourceError:
                pass  # the other side went away, which is its business

    async def _exchange(self, order: ExchangeState) -> None:
        reached: Address | None = None
        reason = "no answer in time"
        with trio.move_on_after(self._timeout_s):
            try:
                reached = await self._exchange_with_one_of(
                    await self._network.resolve(order.to), order
                )
            except (PeerUnavailable, MessageInvalid, trio.BrokenResourceError) as error:
                reason = str(error) or "connection lost"
        if reached is None:
            place = format_address(order.to)
            self._reporter.warn("gossip peer does not answer", place, reason=reason)
        self._handle(ExchangeEnded(order.to, order.join, reached))

    async def _exchange_with_one_of(
        self, addresses: list[Address], order: ExchangeState
    ) -> Address:
        others = [address for address in addresses if address != self._address]
        if not others:
            return self._address
        address = self._rng.choice(others)
        async with await self._network.open_stream(address) as stream:
            await stream.send_all(encode_stream(self._state(join=order.join)))
            answer = await _read(stream)
        match answer:
            case PushPull():
                self._handle(StateReceived(answer, address, dialled=True))
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
                    await stream.send_all(encode_stream(ping))
                    answer = await _read(stream)
            except (PeerUnavailable, MessageInvalid, trio.BrokenResourceError):
                return  # as good as no answer
            if isinstance(answer, Ack) and answer.sequence == order.sequence:
                self._handle(StreamPingAnswered(order.sequence))

    async def _answer(self, stream: trio.abc.Stream, question: StreamMessage) -> None:
        match question:
            case Ping(sequence, target):
                if target in ("", self._name):
                    await stream.send_all(encode_stream(Ack(sequence, None)))
            case PushPull(join):
                await stream.send_all(encode_stream(self._state(join=join)))
                self._handle(StateReceived(question))
            case User():
                self._handle(PacketReceived((question,), self._address))
            case Ack() | Failure():
                raise MessageInvalid("an answer where a question belongs")
            case _:
                assert_never(question)


async def _read(stream: trio.abc.ReceiveStream) -> StreamMessage:
    """Return the one message of a stream; raises `MessageInvalid` when it ends before."""
    decoder = StreamDecoder()
    async for data in stream:
        message = decoder.feed(bytes(data))
        if message is not None:
            return message
    raise MessageInvalid("a stream that ended before its message did")
