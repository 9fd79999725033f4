"""nats-py's client, made careful: for nodes, which read, and for commands, which publish; asyncio.

Three things differ from nats-py:
- it keeps its login to itself where TLS was asked for and is not there. Otherwise the server, or
  another program in its place, decides: nats-py begins TLS only when the server's greeting, which
  comes in plain text, says that it must;
- its end is quiet and complete, whenever it comes. nats-py's own `close` fails on a client that
  never connected, and leaves the socket and its tasks behind when a last write fails or is
  cancelled; and the answer to a ping whose sender was cancelled breaks its reading task;
- a header that is repeated keeps all its values, see `RepeatedHeaders`. nats-py keeps the last.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import ParseResult

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.transport import Transport

from noti.asyncio_loop import CANCEL_AGAIN_S
from noti.publishing.nats.dead_letter import RepeatedHeaders, parse_headers

log = structlog.get_logger("noti.publishing")

CLOSE_S: Final = 1.0
"""What is still to be written goes out in a moment, or never."""

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
        return await self._reader.read(buffer_size)

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

    async def connect(  # type: ignore[override]
        self, servers: str | list[str], **options: Any
    ) -> None:
        """See nats-py."""
        urls = [servers] if isinstance(servers, str) else servers
        self._tcp.wants_tls = options.get("tls") is not None
        if not any(url.startswith(("ws:", "wss:")) for url in urls):
            # nats-py takes no transport from outside, but keeps one that is there.
            self._transport = self._tcp
        elif self._tcp.wants_tls and not all(url.startswith("wss:") for url in urls):
            raise nats.errors.Error(NO_TLS)
        await super().connect(servers, **options)

    async def flush(self, timeout: int = 10) -> None:
        """See nats-py. When this is cancelled, the answer may still come."""
        pinging = asyncio.ensure_future(super().flush(timeout))
        self._pinging.add(pinging)
        pinging.add_done_callback(self._forget)
        await asyncio.shield(pinging)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        parsed: dict[str, str] | None = await super()._process_headers(headers)
        # Lines are a version, headers, and an empty one.
        if parsed and headers.count(b"\r\n") - 2 > len(parsed):
            return RepeatedHeaders(parse_headers(headers))
        return parsed

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
