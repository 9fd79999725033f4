"""The bridge's source: a JetStream stream, read by a consumer made for each session.

nats-py connects here, and reconnects never: after any trouble the bridge opens a new session. Its
exceptions stop here as well, whatever they are (see `edge`).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio
from nats.js import api

from noti.asyncio_loop import AsyncioLoop
from noti.errors import SourceUnavailable
from noti.publishing.nats import consumers, streams
from noti.publishing.nats.connection import NatsConnection
from noti.publishing.nats.dead_letter_copies import COPIES, OUTCOMES, DeadLetterCopies
from noti.publishing.nats.edge import NatsEdge
from noti.publishing.nats.expiry import Expiry
from noti.publishing.nats.ports import DeadLetter, SourceLag, SourceMessage
from noti.publishing.nats.pull import Pull, reply_subject_of
from noti.publishing.nats.settings import NatsSettings

log = structlog.get_logger("noti.publishing")

CLEANUP_S: Final = 1.0
"""For closing a connection; a dead one is left to the operating system."""

REASON_BYTES_MAX: Final = 256
"""Of the reason that is given to the server, for its advisory."""


class NatsSource:
    """Opens sessions on one asyncio loop, which must outlive them."""

    def __init__(self, asyncio_loop: AsyncioLoop, settings: NatsSettings) -> None:
        self._asyncio_loop = asyncio_loop
        self._edge = NatsEdge(asyncio_loop)
        self._settings = settings
        self._expiry = Expiry(settings)
        for outcome in OUTCOMES:
            COPIES.labels(settings.stream, outcome)  # from zero, as alerts see only what grows

    @asynccontextmanager
    async def open(self) -> AsyncIterator["NatsSession"]:
        """Connect, and create the stream when it is missing.

        Raises `SourceUnavailable` within `CONNECT_S` plus a few requests. *Resource handling*: the
        connection is closed on the way out.
        """
        call = self._edge.call
        with self._asyncio_loop.held():
            connection = NatsConnection()
            try:
                await call(connection.open, self._settings)
                info = await call(streams.find_or_make, connection, self._settings)
                yield NatsSession(self._edge, connection, self._settings, info, self._expiry)
            finally:
                with trio.move_on_after(CLEANUP_S, shield=True):
                    for clean_up in (consumers.end, _close):
                        # An error of a broken connection has no news for anybody.
                        try:
                            await call(clean_up, connection)
                        except SourceUnavailable as error:
                            log.debug("closing the NATS connection failed", error=str(error))


async def _close(connection: NatsConnection) -> None:
    await connection.client.close()


class NatsSession:
    """One connection, and one consumer made for it."""

    def __init__(
        self,
        edge: NatsEdge,
        connection: NatsConnection,
        settings: NatsSettings,
        info: api.StreamInfo,
        expiry: Expiry,
    ) -> None:
        self._edge = edge
        self._connection = connection
        self._settings = settings
        self._info = info
        self._stream = streams.identity_of(info)
        self._acknowledges = info.config.retention != api.RetentionPolicy.LIMITS
        self._expiry = expiry
        self._copies = DeadLetterCopies(connection, settings, self._stream)
        self._after_seq = 0
        self._pull: Pull | None = None
        # Sequence and time (ms) of what was fetched and is not settled, in the order of the stream.
        self._unsettled: dict[int, int] = {}

    @property
    def stream(self) -> str:
        """Name and creation time of the stream."""
        return self._stream

    @property
    def acknowledges(self) -> bool:
        """Whether the server keeps each message until it is acknowledged."""
        return self._acknowledges

    async def begin(self, after_seq: int) -> None:
        """Make a consumer; see `noti.publishing.nats.consumers`."""
        await self._edge.call(self._begin_aio, after_seq)

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return what is there, up to `messages_max`; wait up to `wait_s` for the first.

        Messages up to the `after_seq` of `begin` were committed earlier: they are acknowledged and
        not returned. *Cancellation* loses nothing.
        """
        assert self._pull is not None, "begin comes before fetch"
        deadline = trio.current_time() + wait_s
        while True:
            wait_s = max(0, deadline - trio.current_time())
            received = await self._pull.receive(messages_max, wait_s)
            fresh = [message for message in received if message.seq > self._after_seq]
            for message in fresh:
                self._unsettled[message.seq] = message.published_ms
            if not self._acknowledges:
                self._expiry.note(fresh)
            if len(fresh) < len(received):
                old = [message for message in received if message.seq <= self._after_seq]
                await self.ack(old)
            if fresh or trio.current_time() >= deadline:
                return fresh

    async def ack(self, messages: Sequence[SourceMessage]) -> None:
        """Acknowledge; returns when the server has read the acks.

        Should one get lost after that, the message comes again in the next session and is dropped
        by the store: this is why no answer to each ack is awaited.
        """
        await self._edge.call(self._settle_aio, messages, [b"+ACK"] * len(messages))

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Copy these to the dead-letter subject, then tell the server to deliver them never again.

        What the server refuses to copy is lost, which is logged and counted.
        """
        await self._edge.call(self._dead_letter_aio, letters)

    def lag(self) -> SourceLag:
        """Return how far this reader is behind, by the last messages."""
        if self._pull is None:
            return SourceLag(0, 0, None)
        unacknowledged = len(self._unsettled) + self._pull.arrived
        oldest_ms = next(iter(self._unsettled.values()), None)
        return SourceLag(self._pull.pending, unacknowledged, oldest_ms, self._pull.trouble)

    async def _begin_aio(self, after_seq: int) -> None:
        streams.check_end(self._info, after_seq)
        consumer = await consumers.begin(self._connection, self._info, self._settings, after_seq)
        self._info = await streams.same_again(self._connection, self._info)
        if not self._acknowledges:
            self._expiry.begin(self._stream, self._info, after_seq)
        self._after_seq = after_seq
        self._unsettled.clear()
        self._pull = Pull(self._edge, self._connection, consumer)
        await self._pull.subscribe_aio()

    async def _dead_letter_aio(self, letters: Sequence[DeadLetter]) -> None:
        await self._copies.add(letters)
        words = [self._term(letter.reason) for letter in letters]
        await self._settle_aio([letter.message for letter in letters], words)

    def _term(self, reason: str) -> bytes:
        version = self._connection.client.connected_server_version
        if (version.major, version.minor) < (2, 10):
            return b"+TERM"  # With more behind it, older ones do not know it.
        return b"+TERM " + reason.encode()[:REASON_BYTES_MAX]

    async def _settle_aio(self, messages: Sequence[SourceMessage], words: Sequence[bytes]) -> None:
        if self._acknowledges:
            self._connection.forget_refusal()
            replies = map(reply_subject_of, messages)
            await self._connection.client.publish_many(zip(replies, words, strict=True))
            self._connection.check_permitted()
        for message in messages:
            self._unsettled.pop(message.seq, None)
