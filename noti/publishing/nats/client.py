"""nats-py's client, made careful: for nodes, which read, and for commands, which publish; asyncio.

Three things differ from nats-py:
- messages of one inbox can be had without it, many at once and as they came (`tap`), and many small
  ones written in one piece;
- it keeps its login to itself where TLS was asked for and is not there. Otherwise the server, or
  another program in its place, decides: nats-py begins TLS only when the server's greeting, which
  comes in plain text, says that it must;
- its end is quiet and complete, whenever it comes. nats-py's own `close` fails on a client that
  never connected, and leaves the socket and its tasks behind when a last write fails or is
  cancelled; and the answer to a ping whose sender was cancelled breaks its reading task.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias
from urllib.parse import ParseResult

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.transport import Transport

from noti.asyncio_loop import CANCEL_AGAIN_S
from noti.errors import MessageInvalid
from noti.publishing.nats.frames import FrameSplitter, MessageFrame

log = structlog.get_logger("noti.publishing")

FLUSH_S: Final = 2
"""Time for the server to have read what it was sent; a healthy one takes milliseconds."""

CLOSE_S: Final = 1.0
"""What is still to be written goes out in a moment, or never."""

OnFrames: TypeAlias = Callable[[Sequence[MessageFrame]], None]
"""Takes messages that came together; never waits, never raises."""

TAP_SID: Final = 10**15
"""Ids of subscriptions that nats-py did not make are from here on; it numbers its own from 1, and
passes over messages of an id that it does not know."""

NO_TLS: Final = "the server offers no TLS, and nothing was sent to it"


class NatsTransport(Transport):
    """A TCP connection that can be closed at any time, and writes nothing before TLS.

    That is, if TLS was asked for. That the connection is broken shows when one reads from it.
    """

    def __init__(self) -> None:
        self.wants_tls = False
        """Whether the next connection must have TLS, whatever the server's URL says."""
        self._must_encrypt = False
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._splitter = FrameSplitter()
        self._on_frames: OnFrames | None = None

    def tap(self, sid: bytes, on_frames: OnFrames) -> None:
        """Hand messages of this subscription to `on_frames`, past nats-py, from now on.

        It gets none when the connection has ended.
        """
        self._splitter.sid, self._on_frames = sid, on_frames

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """See nats-py."""
        self._must_encrypt = self.wants_tls or uri.scheme == "tls"
        async with asyncio.timeout(connect_timeout):
            self._reader, self._writer = await asyncio.open_connection(
                uri.hostname, uri.port, limit=buffer_size
            )

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """See nats-py."""
        assert self._writer is not None
        hostname = uri if isinstance(uri, str) else uri.hostname
        async with asyncio.timeout(connect_timeout):
            await self._writer.start_tls(ssl_context, server_hostname=hostname)
        self._must_encrypt = False

    def write(self, payload: bytes) -> None:
        """See nats-py; raises `nats.errors.Error` where TLS is missing."""
        self.writelines([payload])

    def writelines(self, payload: Sequence[bytes]) -> None:
        """See nats-py."""
        if self._must_encrypt:
            raise nats.errors.Error(NO_TLS)
        assert self._writer is not None
        self._writer.writelines(payload)

    async def read(self, buffer_size: int) -> bytes:
        """See nats-py."""
        assert self._reader is not None
        while True:
            data = await self._reader.read(buffer_size)
            if self._on_frames is None:
                return data
            if not data:
                self._on_frames([])
                return data
            try:
                others, frames = self._splitter.feed(data)
            except MessageInvalid as error:
                log.warning("the NATS server broke its protocol", error=str(error))
                raise nats.errors.ProtocolError from error
            if frames:
                self._on_frames(frames)
            if others:
                return others

    async def readline(self) -> bytes:
        """See nats-py."""
        assert self._reader is not None
        return await self._reader.readline()

    async def drain(self) -> None:
        """See nats-py."""
        if self._writer is not None:
            with suppress(OSError):
                await self._writer.drain()

    async def wait_closed(self) -> None:
        """See nats-py."""
        try:
            if self._writer is not None:
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(CLOSE_S):
                        await self._writer.wait_closed()
        finally:
            self.abort()

    def close(self) -> None:
        """See nats-py."""
        if self._writer is not None:
            self._writer.close()

    def abort(self) -> None:
        """Close at once, whatever is still to be written; nobody waits any more."""
        if self._writer is not None:
            self._writer.transport.abort()

    def at_eof(self) -> bool:
        """See nats-py."""
        return self._reader is None or self._reader.at_eof()

    def __bool__(self) -> bool:
        """nats-py makes a transport of its own where there is none."""
        return True


class NatsClient(Client):
    """A client that can be closed at any time, and cancelled anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self._tcp = NatsTransport()
        self._pinging: set[asyncio.Future[None]] = set()
        self._taps = 0

    async def connect(  # type: ignore[override]
        self, servers: str | list[str], **options: Any
    ) -> None:
        """See nats-py."""
        self._tcp.wants_tls = options.get("tls") is not None
        # nats-py takes no transport from outside, but keeps one that is there.
        self._transport = self._tcp
        await super().connect(servers, **options)

    async def tap(self, inbox: str, on_frames: OnFrames) -> None:
        """Subscribe to an inbox whose messages `on_frames` takes, instead of the last one."""
        if self._taps:
            self._tcp.write(b"UNSUB %d\r\n" % (TAP_SID + self._taps))
        self._taps += 1
        sid = TAP_SID + self._taps
        self._tcp.tap(b"%d" % sid, on_frames)
        self._tcp.write(b"SUB %b %d\r\n" % (inbox.encode(), sid))
        await self._tcp.drain()

    async def publish_many(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish small messages, each to its subject, in one piece; then await the server.

        Returns when it has read them. Raises what `flush` does.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        pieces = [
            b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
            for subject, payload in messages
        ]
        self._tcp.write(b"".join(pieces))
        await self._tcp.drain()
        await self.flush(FLUSH_S)

    async def flush(self, timeout: int = 10) -> None:
        """See nats-py. When this is cancelled, the answer may still come."""
        pinging = asyncio.ensure_future(super().flush(timeout))
        self._pinging.add(pinging)
        pinging.add_done_callback(self._forget)
        await asyncio.shield(pinging)

    def _forget(self, pinging: "asyncio.Future[None]") -> None:
        self._pinging.discard(pinging)
        if not pinging.cancelled():
            pinging.exception()  # Nobody may be waiting any more.

    async def close(self) -> None:
        """Close the connection, and end all tasks; never fails.

        *Cancellation*: what is still to be written is lost.
        """
        closing = asyncio.ensure_future(super().close())
        cancelled = False
        while tasks := {one for one in (closing, *self._pinging) if not one.done()}:
            for pinging in tasks - {closing}:
                pinging.cancel()
            try:
                await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)
            except asyncio.CancelledError:
                cancelled = True
                self._tcp.abort()  # Now nats-py waits for nothing any more.
        self._tcp.abort()
        if not closing.cancelled() and (error := closing.exception()) is not None:
            log.debug("closing a NATS connection failed", error=repr(error))
        if cancelled:
            raise asyncio.CancelledError
