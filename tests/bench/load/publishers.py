"""Hands marked events to whatever feeds the server that is measured.

Enters: texts. Leaves: published messages, in order.
Never: an event counted as published that was refused.

- JetStream: a batch is published at once and awaited together.
- gRPC: one request of `noti.v1.Publisher` for each event, on one stream.
- HTTP: one POST for each event, pipelined on one connection: nchan's publisher location, or any
  other URL that takes an event's data as a body.
"""

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import grpclib.exceptions
import nats
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from nats.aio.client import Client
from nats.js import JetStreamContext

from noti.errors import SourceUnavailable, Unavailable
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.rpc.generated.noti.v1 import Event, PublishRequest, PublishStreamResponse
from tests.bench.load.mark import EVENT_BYTES, Mark, event_text

ANSWER_S_MAX = 30.0
READ_BYTES = 64 * 1024
UNANSWERED_MAX = 64
"""Events on their way at once, so that a server never waits until its publisher has heard it."""


class Publisher(Protocol):
    """A way to publish; blocks."""

    def publish(self, marks: Sequence[Mark]) -> None:
        """Hand them over; return when at most `UNANSWERED_MAX` wait to be accepted.

        Raises `Unavailable`.
        """

    def settle(self) -> None:
        """Return when all are accepted; raises `Unavailable`."""

    def close(self) -> None:
        """Hang up."""


class HttpPublisher:
    """Posts events to a URL, as many as wait, without waiting for each answer."""

    def __init__(
        self,
        url: str,
        event_bytes: int = EVENT_BYTES,
        *,
        headers: Sequence[str] = (),
        around: tuple[bytes, bytes] = (b"", b""),
    ) -> None:
        """Connect; `around` is what comes before and after an event's data in each body."""
        parts = urlsplit(url)
        self._url = url
        self._around = around
        further = [f"{header}\r\n" for header in headers]
        self._event_bytes = event_bytes
        self._head = (
            f"POST {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1\r\n"
            f"Host: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"{''.join(further)}Content-Length: "
        ).encode("ascii")
        try:
            self._sock = socket.create_connection(
                (parts.hostname, parts.port or 80), timeout=ANSWER_S_MAX
            )
        except OSError as error:
            raise Unavailable(f"no answer from {url}: {error}") from None
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._unanswered = 0

    def publish(self, marks: Sequence[Mark]) -> None:
        """Post all, and read answers to what was posted before."""
        requests = []
        before, after = self._around
        for mark in marks:
            body = before + event_text(mark, self._event_bytes).encode() + after
            requests.append(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        try:
            self._sock.sendall(b"".join(requests))
            self._unanswered += len(marks)
            self._read_answers(UNANSWERED_MAX)
        except OSError as error:
            raise Unavailable(f"{self._url} does not take events: {error}") from None

    def settle(self) -> None:
        """Read all answers."""
        try:
            self._read_answers(0)
        except OSError as error:
            raise Unavailable(f"{self._url} does not take events: {error}") from None

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def _read_answers(self, left: int) -> None:
        while self._unanswered > left:
            self._read_answer()
            self._unanswered -= 1

    def _read_answer(self) -> None:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status_line, *fields = head.split(b"\r\n")
        status = status_line.split(b" ")[1]
        if not status.startswith(b"2"):
            raise Unavailable(f"{self._url} answers {status_line.decode('latin-1')}")
        length = 0
        for name, _, value in (one.partition(b":") for one in fields):
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"transfer-encoding":
                raise Unavailable(f"{self._url} answers in chunks, which is not understood here")
        while len(self._received) < length:
            self._receive()
        self._received = self._received[length:]

    def _receive(self) -> None:
        data = self._sock.recv(READ_BYTES)
        if not data:
            raise Unavailable(f"{self._url} hangs up")
        self._received += data


class JetStreamPublisher:
    """Publishes category messages to a JetStream stream; the stream must exist."""

    def __init__(self, url: str, subject: str, event_bytes: int = EVENT_BYTES) -> None:
        """Connect."""
        self._subject = subject
        self._event_bytes = event_bytes
        self._runner = asyncio.Runner()
        try:
            self._client, self._jetstream = self._runner.run(_connect(url))
        except (OSError, nats.errors.Error) as error:
            raise SourceUnavailable(f"NATS at {url} cannot be used: {error}") from None

    def publish(self, marks: Sequence[Mark]) -> None:
        """Publish all, and return when JetStream has all."""
        try:
            self._runner.run(self._publish(marks))
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise SourceUnavailable(f"NATS does not take events: {error!r}") from None

    def settle(self) -> None:
        """Do nothing: nothing waits."""

    def close(self) -> None:
        """Hang up."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _publish(self, marks: Sequence[Mark]) -> None:
        async with asyncio.timeout(ANSWER_S_MAX):
            # One connection keeps the order in which publications are begun.
            futures = [
                await self._jetstream.publish_async(
                    self._subject, bytes(_message(mark, self._event_bytes))
                )
                for mark in marks
            ]
            await asyncio.gather(*futures)


class GrpcPublisher:
    """Publishes to a node's RPC port, as many events as wait, each a request of its own."""

    def __init__(self, host: str, port: int, topic: str, event_bytes: int = EVENT_BYTES) -> None:
        """Open a stream."""
        self._topic = topic
        self._event_bytes = event_bytes
        self._address = f"{host}:{port}"
        self._unanswered = 0
        self._runner = asyncio.Runner()
        try:
            self._stream = self._runner.run(self._open(host, port))
        except (OSError, grpclib.exceptions.StreamTerminatedError) as error:
            raise Unavailable(f"no answer from {self._address}: {error}") from None

    def publish(self, marks: Sequence[Mark]) -> None:
        """Send all, and read answers to what was sent before."""
        self._run(self._publish(marks))

    def settle(self) -> None:
        """Read all answers."""
        self._run(self._read_answers(0))

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
        self._runner.close()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            self._runner.run(work)
        except (
            OSError,
            grpclib.exceptions.GRPCError,
            grpclib.exceptions.StreamTerminatedError,
        ) as error:
            raise Unavailable(f"{self._address} does not take events: {error!r}") from None

    async def _open(self, host: str, port: int) -> "_PublishStream":
        self._channel = Channel(host, port)
        stream: _PublishStream = self._channel.request(
            "/noti.v1.Publisher/PublishStream",
            Cardinality.STREAM_STREAM,
            PublishRequest,
            PublishStreamResponse,
        )
        await stream.__aenter__()
        await stream.send_request()
        return stream

    async def _publish(self, marks: Sequence[Mark]) -> None:
        async with asyncio.timeout(ANSWER_S_MAX):
            for mark in marks:
                data = event_text(mark, self._event_bytes)
                event = Event(topics=[self._topic], data=data)
                await self._stream.send_message(PublishRequest(events=[event]))
                self._unanswered += 1
            await self._read_answers(UNANSWERED_MAX)

    async def _read_answers(self, left: int) -> None:
        while self._unanswered > left:
            answer = await self._stream.recv_message()
            if answer is None or answer.failure is not None:
                raise Unavailable(f"{self._address} does not take events: {answer}")
            self._unanswered -= 1


_PublishStream: TypeAlias = Stream[PublishRequest, PublishStreamResponse]


async def _connect(url: str) -> tuple[Client, JetStreamContext]:
    client = await nats.connect(url, name="noti bench", allow_reconnect=False)
    return client, client.jetstream(timeout=ANSWER_S_MAX)


def _message(mark: Mark, event_bytes: int) -> CategoryMessage:
    """Return the message that a node shows as `event_bytes` bytes of JSON."""
    padding = "x" * (event_bytes - len(_shown(mark, "")))
    return CategoryMessage(
        user_id=mark.seq,
        category_from=str(mark),
        category_to=padding,
        created_at=datetime.now(UTC),
    )


def _shown(mark: Mark, padding: str) -> str:
    return (
        f'{{"user_id":{mark.seq},"category_from":"{mark}","category_to":"{padding}",'
        '"created_at":"2026-01-01T00:00:00.000Z"}'
    )
