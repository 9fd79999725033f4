"""Pulls messages from a JetStream consumer that was just made, one request at a time; asyncio.

What it returns is in stream order, and is for others to acknowledge.

nats-py's own `fetch` waits for a full batch or its timeout, up to a second for a single event, and
after a server restart it sits its timeout out. Here a request lingers on the server, and whatever
has arrived is returned at once.
"""

import asyncio
import json
from typing import Final

from nats.aio.msg import Msg
from nats.js import api

from noti.errors import SourceUnavailable
from noti.publishing.nats.connection import NatsConnection
from noti.publishing.nats.dead_letter import HeaderLines
from noti.publishing.nats.ports import SourceMessage

PULL_LINGER_S: Final = 2.0
"""How long a pull request waits on the server. When it ends empty, the place is checked."""

HEARTBEAT_S: Final = 0.5
"""How often the server shows that it still holds our pull request."""

SILENCE_S: Final = 1.75
"""Silence longer than three heartbeats means that the server, or the way to it, is gone."""

REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
"""What one request may bring; but always one message, however large the server lets it be."""

HEADERS_BYTES_MAX: Final = 64 * 1024
"""What subjects and words of the server add to a message of the largest size, and more."""

_TOO_LARGE: Final = "message size exceeds maxbytes"
_COMPLETED: Final = "batch completed"
"""How the server says that a request has brought what it may; the next one brings more."""

_PENDING_MESSAGES: Final = "Nats-Pending-Messages"
"""How many more a request that ended could have brought, by their number alone."""


class Pull:
    """The place of one session in the stream."""

    def __init__(self, connection: NatsConnection, consumer: api.ConsumerInfo) -> None:
        self._client = connection.client
        self._connection = connection
        self._stream = consumer.stream_name
        self._consumer = consumer.name
        self._created = consumer.created
        self._inbox = self._client.new_inbox()
        # Bounded by what one request asks for.
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self.pending = consumer.num_pending or 0
        """Messages that were not delivered yet, when the server last reported."""
        self._requested = 0
        self._brought = 0
        self._consumer_seq = 0
        self._stream_seq = 0
        self._last_contact_at = 0.0

    @property
    def arrived(self) -> int:
        """Messages that nobody has taken yet, and the end of a request."""
        return self._arrived.qsize()

    async def subscribe(self) -> None:
        """Start receiving what the server sends to our inbox."""
        await self._client.subscribe(self._inbox, cb=self._on_message)

    async def receive(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return what arrived, up to `messages_max`; wait up to `wait_s` for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            if self._requested == 0 and self._arrived.empty():
                await self._request(messages_max)
            received = self._take(messages_max)
            if received:
                return received
            if self._requested == 0:
                # The request ended while nobody was reading; that is no silence of the server.
                continue
            silence_s = self._last_contact_at + SILENCE_S - loop.time()
            if self._client.is_closed:
                raise SourceUnavailable("the connection to NATS broke")
            if silence_s <= 0:
                self._connection.check_permitted()
                raise SourceUnavailable(f"NATS was silent for {SILENCE_S} s")
            if loop.time() >= deadline:
                return []
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + min(silence_s, 0.25))):
                    first = await self._arrived.get()
            except TimeoutError:
                continue
            received = self._accept(first) + self._take(messages_max - 1)
            if received:
                return received

    async def _on_message(self, message: Msg) -> None:
        self._last_contact_at = asyncio.get_running_loop().time()
        if not _has_no_news(message):
            self._arrived.put_nowait(message)

    def _take(self, messages_max: int) -> list[SourceMessage]:
        received: list[SourceMessage] = []
        while len(received) < messages_max and not self._arrived.empty():
            received += self._accept(self._arrived.get_nowait())
        return received

    def _accept(self, message: Msg) -> list[SourceMessage]:
        """Return the message in a list, or nothing when it was only the server's word to us."""
        status = (message.headers or {}).get(api.Header.STATUS)
        if status is None:
            self._requested = max(0, self._requested - 1)
            self._brought += 1
            self._check_order(message)
            return [_source_message(message)]
        reason = (message.headers or {}).get(api.Header.DESCRIPTION, "")
        match status:
            case api.StatusCode.NO_MESSAGES | api.StatusCode.REQUEST_TIMEOUT:
                self._requested = 0
                return []
            case "409" if reason.lower() == _COMPLETED:
                self._requested = 0
                return []
            case "409" if reason.lower() == _TOO_LARGE and self._brought:
                self._requested = 0
                return []
            case api.StatusCode.SERVICE_UNAVAILABLE:
                raise SourceUnavailable(
                    f"consumer {self._consumer} of stream {self._stream} is gone"
                )
            case _:
                raise SourceUnavailable(
                    f"NATS ended reading of stream {self._stream}: {reason or status}"
                )

    def _check_order(self, message: Msg) -> None:
        sequence = message.metadata.sequence
        if sequence.consumer != self._consumer_seq + 1 or sequence.stream <= self._stream_seq:
            raise SourceUnavailable(
                f"message {sequence.stream} came out of order: some were taken by another reader "
                f"of consumer {self._consumer}, or lost on their way"
            )
        self._consumer_seq, self._stream_seq = sequence.consumer, sequence.stream
        self.pending = message.metadata.num_pending or 0

    async def _request(self, messages_max: int) -> None:
        """Ask for messages. Only when no request is open, so that each status has one meaning."""
        if self._last_contact_at:
            await self._check_place()
        request = {
            "batch": messages_max,
            "max_bytes": max(REQUEST_BYTES_MAX, self._client.max_payload + HEADERS_BYTES_MAX),
            "expires": int(PULL_LINGER_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        self._requested, self._brought = messages_max, 0
        self._last_contact_at = asyncio.get_running_loop().time()
        subject = f"{api.DEFAULT_PREFIX}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), self._inbox)

    async def _check_place(self) -> None:
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


def _has_no_news(message: Msg) -> bool:
    """Whether this is a heartbeat, or says that a request has brought as many as it was to."""
    headers = message.headers or {}
    if headers.get(api.Header.STATUS) == api.StatusCode.CONTROL_MESSAGE:
        return True
    reason = headers.get(api.Header.DESCRIPTION, "").lower()
    return reason == _COMPLETED and headers.get(_PENDING_MESSAGES, "0") == "0"


def _source_message(message: Msg) -> SourceMessage:
    headers: dict[str, list[str]] = {}
    for name, value in (message.headers or {}).items():
        headers.setdefault(name.lower(), []).append(value)
    return SourceMessage(
        seq=message.metadata.sequence.stream,
        subject=message.subject,
        payload=message.data,
        headers=headers,
        published_ms=int(message.metadata.timestamp.timestamp() * 1000),
        token=message,
    )


def reply_subject_of(message: SourceMessage) -> str:
    """Return where the server waits for the acknowledgement."""
    assert isinstance(message.token, Msg)
    return message.token.reply


def header_lines_of(message: SourceMessage) -> HeaderLines:
    """Return the headers as they were written."""
    assert isinstance(message.token, Msg)
    return tuple((message.token.headers or {}).items())
