"""Pulls messages from a JetStream consumer that was just made, one request at a time.

What it returns is in stream order, and is for others to acknowledge.

nats-py's own `fetch` waits for a full batch or its timeout, up to a second for a single event, and
after a server restart it sits its timeout out. Here a request lingers on the server, and whatever
has arrived is returned at once. Messages come past nats-py, in the turn in which they are read, and
wake the Trio task that waits for them; only requests are asyncio.
"""

import json
from collections import deque
from collections.abc import Sequence
from typing import Final

import trio
from nats.js import api

from noti.errors import MessageInvalid, SourceUnavailable
from noti.publishing.nats.connection import NatsConnection
from noti.publishing.nats.dead_letter import HeaderLines, parse_headers
from noti.publishing.nats.edge import NatsEdge
from noti.publishing.nats.frames import MessageFrame, place_of, status_of
from noti.publishing.nats.ports import NO_HEADERS, Headers, SourceMessage

PULL_LINGER_S: Final = 2.0
"""How long a pull request waits on the server. When it ends empty, the place is checked."""

HEARTBEAT_S: Final = 0.5
"""How often the server shows that it still holds our pull request."""

SILENCE_S: Final = 1.75
"""Silence longer than three heartbeats means that the server, or the way to it, is gone."""

REQUEST_MESSAGES: Final = 2048
"""What one request may bring: so few requests that they do not count, and half of what the server
hands out before the first acknowledgement."""

REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
"""The same in bytes; but always one message, however large the server lets it be."""

TAKE_BYTES_MAX: Final = 1024 * 1024
"""What is returned at once, with one message more: as much as one command holds."""

HEADERS_BYTES_MAX: Final = 64 * 1024
"""What subjects and words of the server add to a message of the largest size, and more."""

_TOO_LARGE: Final = "message size exceeds maxbytes"
_COMPLETED: Final = "batch completed"
"""How the server says that a request has brought what it may; the next one brings more."""


class Pull:
    """The place of one session in the stream."""

    def __init__(
        self, edge: NatsEdge, connection: NatsConnection, consumer: api.ConsumerInfo
    ) -> None:
        self._edge = edge
        self._client = connection.client
        self._connection = connection
        self._stream = consumer.stream_name
        self._consumer = consumer.name
        self._created = consumer.created
        self._inbox = self._client.new_inbox()
        # Bounded by what one request asks for.
        self._arrived: deque[SourceMessage] = deque()
        self._news = trio.Event()
        self._broken: SourceUnavailable | None = None
        self.pending = consumer.num_pending or 0
        """Messages that were not delivered yet, when the server last reported."""
        self.trouble: str | None = None
        """Why nothing comes, if an operator of NATS wanted it so."""
        self._requested = 0
        self._brought = 0
        self._check_needed = False
        self._consumer_seq = 0
        self._stream_seq = 0
        self._last_contact_at = 0.0

    @property
    def arrived(self) -> int:
        """Messages that nobody has taken yet."""
        return len(self._arrived)

    async def subscribe_aio(self) -> None:
        """Start receiving what the server sends to our inbox."""
        await self._client.tap(self._inbox, self._on_frames)

    async def receive(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return what arrived, up to `messages_max`; wait up to `wait_s` for the first.

        *Cancellation* loses nothing.
        """
        deadline = trio.current_time() + wait_s
        while True:
            if self._arrived:
                return self._take(messages_max)
            if self._broken is not None:
                raise self._broken
            if self._client.is_closed:
                raise SourceUnavailable("the connection to NATS broke")
            if self._requested == 0:
                await self._edge.call(self._request_aio)
            now = trio.current_time()
            silent_at = self._last_contact_at + SILENCE_S
            if now >= silent_at:
                self._connection.check_permitted()
                raise SourceUnavailable(f"NATS was silent for {SILENCE_S} s")
            if now >= deadline:
                return []
            self._news = trio.Event()
            with trio.move_on_at(min(deadline, silent_at)):
                await self._news.wait()

    def _take(self, messages_max: int) -> list[SourceMessage]:
        taken: list[SourceMessage] = []
        size_bytes = 0
        while self._arrived and len(taken) < messages_max and size_bytes < TAKE_BYTES_MAX:
            message = self._arrived.popleft()
            size_bytes += len(message.payload)
            taken.append(message)
        return taken

    def _on_frames(self, frames: Sequence[MessageFrame]) -> None:
        """Take what one read brought; none when the connection has ended."""
        self._last_contact_at = trio.current_time()
        try:
            for frame in frames:
                headers = frame.headers
                status = status_of(headers) if headers else None
                if status is None:
                    self._accept(frame)
                else:
                    self._hear(*status)
        except MessageInvalid as error:
            self._broken = SourceUnavailable(f"NATS: {error}")
        except SourceUnavailable as error:
            self._broken = error
        self._news.set()

    def _accept(self, frame: MessageFrame) -> None:
        subject, reply, headers, payload = frame
        stream_seq, consumer_seq, published_ms, self.pending = place_of(reply)
        if consumer_seq != self._consumer_seq + 1 or stream_seq <= self._stream_seq:
            raise SourceUnavailable(
                f"message {stream_seq} came out of order: some were taken by another reader "
                f"of consumer {self._consumer}, or lost on their way"
            )
        self._consumer_seq, self._stream_seq = consumer_seq, stream_seq
        self._requested = max(0, self._requested - 1)
        self._brought += 1
        # Otherwise what comes next shows whether something is missing.
        self._check_needed = False
        self.trouble = None
        known = _headers_of(headers) if headers else NO_HEADERS
        self._arrived.append(
            tuple.__new__(SourceMessage, (stream_seq, subject, payload, known, published_ms, frame))
        )

    def _hear(self, status: str, description: str) -> None:
        """Heed the server's word about our request."""
        reason = description.lower()
        match status:
            case api.StatusCode.CONTROL_MESSAGE:  # a heartbeat
                return
            case api.StatusCode.NO_MESSAGES | api.StatusCode.REQUEST_TIMEOUT:
                self._requested, self._check_needed = 0, True
            case "409" if reason == _COMPLETED or (reason == _TOO_LARGE and self._brought):
                self._requested = 0
            case api.StatusCode.SERVICE_UNAVAILABLE:
                raise SourceUnavailable(
                    f"consumer {self._consumer} of stream {self._stream} is gone"
                )
            case _:
                raise SourceUnavailable(
                    f"NATS ended reading of stream {self._stream}: {description or status}"
                )

    async def _request_aio(self) -> None:
        """Ask for messages. Only when no request is open, so that each status has one meaning."""
        if self._check_needed:
            await self._check_place_aio()
        request = {
            "batch": REQUEST_MESSAGES,
            "max_bytes": max(REQUEST_BYTES_MAX, self._client.max_payload + HEADERS_BYTES_MAX),
            "expires": int(PULL_LINGER_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        self._requested, self._brought = REQUEST_MESSAGES, 0
        self._last_contact_at = trio.current_time()
        subject = f"{api.DEFAULT_PREFIX}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), self._inbox)

    async def _check_place_aio(self) -> None:
        """Find out whether somebody else took messages that we have not seen.

        The order check notices this when the next message comes, but there may be no next one for
        hours. No request of ours is open now, so all that was delivered to us has arrived.
        """
        jetstream = self._connection.jetstream
        info = await self._connection.asked(jetstream.consumer_info(self._stream, self._consumer))
        delivered = info.delivered.consumer_seq if info.delivered is not None else 0
        if info.created != self._created or delivered != self._consumer_seq:
            raise SourceUnavailable(
                f"messages were taken by another reader of consumer {self._consumer}"
            )
        self.pending = info.num_pending or 0
        self.trouble = None
        if info.paused:
            self.trouble = (
                f"consumer {self._consumer} of stream {self._stream} is paused; go on with:"
                f" nats consumer resume {self._stream} {self._consumer}"
            )


def _headers_of(block: bytes) -> Headers:
    headers: dict[str, list[str]] = {}
    for name, value in parse_headers(block):
        headers.setdefault(name.lower(), []).append(value)
    return headers


def reply_subject_of(message: SourceMessage) -> str:
    """Return where the server waits for the acknowledgement."""
    assert isinstance(message.token, MessageFrame)
    return message.token.reply


def header_lines_of(message: SourceMessage) -> HeaderLines:
    """Return the headers as they were written."""
    assert isinstance(message.token, MessageFrame)
    return parse_headers(message.token.headers)
