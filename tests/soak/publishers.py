"""Numbered events, each published until somebody has it: through gRPC and HTTP.

What all publishers share is here, too; see `jetstream.py` for others.

Enters: how many more events there shall be at once. Leaves: how many are acknowledged.
Never: the next number before the last one is acknowledged or on its way on the same connection;
a number given up.

Whatever goes wrong, what was not acknowledged is published again with the same id and content. All
ways have a memory for that which is longer than any trouble here, so that each event is shown once.
Over HTTP two events in a row have one id, and some events are published again although they were
acknowledged.
"""

import asyncio
import contextlib
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, TypeAlias
from urllib.parse import urlencode

import grpclib.exceptions
import nats.errors
import nats.js.errors
import trio
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.errors import Unavailable
from noti.rpc.generated.noti.v1 import Event, PublishRequest, PublishStreamResponse
from tests.bench.load.mark import EVENT_BYTES, Mark, event_text
from tests.soak import ledger
from tests.soak.connections import HOST

TOPIC = "soak"
RPC_PER_S = 20
REQUEST_EVENTS = 50
REQUEST_BYTES = 200_000
REQUESTS_AT_ONCE = 64
"""Of a burst through gRPC."""
SIZES_MAX = 100_000
"""More than a burst."""
HTTP_PER_S = 20
HTTP_TWICE_EVERY = 10
"""Each tenth event is published again after it was acknowledged."""
HTTP_AGAIN = {429, 503, 504}
"""Nothing was committed, or nobody knows: publish again."""
ANSWER_S_MAX = 5.0
PAUSE_S = 0.1
RESOURCE_EXHAUSTED = 8

_Stream: TypeAlias = Stream[PublishRequest, PublishStreamResponse]


class Connection(Protocol):
    """Something to publish on, until it breaks."""

    async def publish(self, numbers: Sequence[int]) -> int:
        """Publish these; return how many of them, from the first, are acknowledged."""

    async def close(self) -> None:
        """Hang up."""


class Feed(ABC):
    """Publishes 1, 2, 3, … at a steady rate, and bursts between."""

    def __init__(self, asyncio_loop: AsyncioLoop, per_s: float, at_once: int) -> None:
        self.acknowledged = 0
        """All numbers up to this one are."""
        self.event_bytes = EVENT_BYTES
        """Of a burst's events, where the publisher can choose it."""
        self._asyncio_loop = asyncio_loop
        self._interval_s = 1 / per_s
        self._at_once = at_once
        self._burst_end = 0
        self._stopping = False
        self._stopped = trio.Event()

    def burst(self, events: int, event_bytes: int = EVENT_BYTES) -> int:
        """Publish so many as fast as they are taken; return the last one's number."""
        self._burst_end = max(self._burst_end, self.acknowledged) + events
        self.event_bytes = event_bytes
        return self._burst_end

    async def run(self) -> None:
        """Publish until stopped."""
        while not self._done():
            with contextlib.suppress(Unavailable):
                await self._asyncio_loop.call(self._session_aio)
            await trio.sleep(PAUSE_S)
        self._stopped.set()

    async def stop(self) -> int:
        """Stop when bursts are over, and return how many events there were."""
        self._stopping = True
        await self._stopped.wait()
        return self.acknowledged

    def _done(self) -> bool:
        return self._stopping and self.acknowledged >= self._burst_end

    async def _session_aio(self) -> None:
        try:
            connection = await self._connect_aio()
        except _TROUBLE:
            return
        try:
            await self._publish_aio(connection)
        except _TROUBLE:
            return  # the next session begins with what this one did not get acknowledged
        finally:
            with contextlib.suppress(*_TROUBLE):
                await connection.close()

    async def _publish_aio(self, connection: Connection) -> None:
        due = time.monotonic()
        while not self._done():
            first, burst = self.acknowledged + 1, self._burst_end - self.acknowledged
            numbers = range(first, first + min(self._at_once, max(1, burst)))
            acknowledged = await connection.publish(numbers)
            self.acknowledged += acknowledged
            if acknowledged < len(numbers):
                await asyncio.sleep(PAUSE_S)
            due = max(due + self._interval_s, time.monotonic() - 1)
            if burst <= 0:
                await asyncio.sleep(due - time.monotonic())

    @abstractmethod
    async def _connect_aio(self) -> Connection:
        """Return a connection to the system that takes events; raises one of `_TROUBLE`."""


class RpcFeed(Feed):
    """Publishes to one node after the other, another one whenever something goes wrong."""

    def __init__(
        self, asyncio_loop: AsyncioLoop, nodes: Sequence[Address], run: str, at_once_max: int
    ) -> None:
        """With at most so many events on their way, which history must hold."""
        super().__init__(
            asyncio_loop, RPC_PER_S, min(at_once_max, REQUEST_EVENTS * REQUESTS_AT_ONCE)
        )
        self._nodes = nodes
        self._run = run
        self._turn = 0
        self._sizes: dict[int, int] = {}
        """Of events that were sent: what is published again after a burst has begun is the same."""

    async def _connect_aio(self) -> Connection:
        host, port = self._nodes[self._turn % len(self._nodes)]
        self._turn += 1
        channel = Channel(host, port)
        stream: _Stream = channel.request(
            "/noti.v1.Publisher/PublishStream",
            Cardinality.STREAM_STREAM,
            PublishRequest,
            PublishStreamResponse,
        )
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await stream.__aenter__()
                await stream.send_request()
        except BaseException:
            channel.close()
            raise
        return _Rpc(channel, stream, self)

    def event(self, number: int) -> Event:
        """Return an event with this number."""
        # No time: another content under the same id would be another event.
        mark = Mark(self._run, ledger.key_of(ledger.RPC, number), 0)
        size = self.event_bytes if number <= self._burst_end else EVENT_BYTES
        if len(self._sizes) > SIZES_MAX:
            self._sizes = {n: size for n, size in self._sizes.items() if n > self.acknowledged}
        size = self._sizes.setdefault(number, size)
        return Event([TOPIC], event_text(mark, size), f"{self._run}-r{number}")


class _Rpc:
    def __init__(self, channel: Channel, stream: _Stream, feed: RpcFeed) -> None:
        self._channel = channel
        self._stream = stream
        self._feed = feed

    async def publish(self, numbers: Sequence[int]) -> int:
        """All are answered before the next; those behind a failure are published again."""
        size = max(1, min(REQUEST_EVENTS, REQUEST_BYTES // self._feed.event_bytes))
        requests = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        acknowledged, failed = 0, False
        async with asyncio.timeout(ANSWER_S_MAX):
            for request in requests:
                await self._stream.send_message(
                    PublishRequest(list(map(self._feed.event, request)))
                )
            for request in requests:
                answer = await self._stream.recv_message()
                if answer is None:
                    raise Unavailable("the node ended the stream")
                failure = answer.failure
                if failure is not None and failure.code != RESOURCE_EXHAUSTED:
                    raise Unavailable(failure.message)
                failed = failed or failure is not None
                acknowledged += 0 if failed else len(request)
        return acknowledged

    async def close(self) -> None:
        self._channel.close()


class HttpFeed(Feed):
    """Posts to one node after the other, another one whenever something goes wrong."""

    def __init__(
        self,
        asyncio_loop: AsyncioLoop,
        nodes: Sequence[tuple[Address, ssl.SSLContext | None]],
        run: str,
        token: str,
        *,
        repeats: bool,
    ) -> None:
        """Post to nodes of which some have TLS; `token` may publish everything.

        With `repeats`, some events again after they were acknowledged: history must be so long
        that it still holds them then, whatever else is published meanwhile.
        """
        super().__init__(asyncio_loop, HTTP_PER_S, 1)
        self.wrong: list[str] = []
        """Answers that no node should have given, in words."""
        self._nodes = nodes
        self._run = run
        self._token = token
        self.repeats = repeats
        self._turn = 0

    async def _connect_aio(self) -> Connection:
        (host, port), context = self._nodes[self._turn % len(self._nodes)]
        self._turn += 1
        name = HOST if context else None
        async with asyncio.timeout(ANSWER_S_MAX):
            ends = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
            return _Http(*ends, self)

    def request(self, number: int) -> bytes:
        """Return the request that publishes this event."""
        key = ledger.key_of(ledger.HTTP, number)
        fields = {"topic": TOPIC, "data": event_text(Mark(self._run, key, 0)), "type": "soak"}
        fields["id"] = ledger.http_id(self._run, number)
        if ledger.is_private(key):
            fields["private"] = "on"
        body = urlencode(fields).encode()
        head = (
            "POST /.well-known/mercure HTTP/1.1\r\nHost: soak\r\n"
            f"Authorization: Bearer {self._token}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def check(self, number: int, status: int, body: str) -> None:
        """Look at an answer; raises `Unavailable` when the event is to be published again."""
        if status in HTTP_AGAIN:
            raise Unavailable(f"status {status}")
        if status != 200 or body != ledger.http_id(self._run, number):
            self.wrong.append(f"HTTP event {number} was answered {status}: {body[:200]!r}")
            raise Unavailable(body)


class _Http:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, feed: HttpFeed
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._feed = feed

    async def publish(self, numbers: Sequence[int]) -> int:
        """One after the other; some once more, as somebody does who lost the answer."""
        for number in numbers:
            again = self._feed.repeats and number % HTTP_TWICE_EVERY == 0
            for _ in range(2 if again else 1):
                async with asyncio.timeout(ANSWER_S_MAX):
                    self._writer.write(self._feed.request(number))
                    await self._writer.drain()
                    self._feed.check(number, *await self._answer())
        return len(numbers)

    async def _answer(self) -> tuple[int, str]:
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            body = await self._reader.readexactly(length)
        except (EOFError, ValueError):
            raise Unavailable("the node hung up") from None
        return int(head.split(" ", 2)[1]), body.decode()

    async def close(self) -> None:
        self._writer.close()


_TROUBLE = (
    OSError,
    TimeoutError,
    Unavailable,
    grpclib.exceptions.GRPCError,
    grpclib.exceptions.StreamTerminatedError,
    nats.errors.Error,
    nats.js.errors.Error,
    asyncio.InvalidStateError,
    AttributeError,  # grpclib, when a connection dies while a stream begins
)


async def ignore(_error: Exception) -> None:
    """Errors come out of the calls too; nats-py would print them."""
