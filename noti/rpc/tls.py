"""TLS on the asyncio island: grpclib's connections, with errors and alerts that reach people.

Enters: sockets and addresses, contexts. Leaves: connections, and the certificate that the other
side proved to hold. Never: a check of whose certificate it is (`peer_certificates`).

asyncio has TLS built in, but the version of Python 3.11 closes the connection without the alert
that would tell the other side what is wrong with it, and waits 30 s for a farewell.
"""

import asyncio
import asyncio.sslproto
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated
from h2.settings import SettingCodes

from noti.address import Address
from noti.rpc.connections import Http2Protocol

HANDSHAKE_S: Final = 5
"""A handshake takes two round trips; who is silent for longer holds a connection for nothing."""

FRAME_BYTES_MAX: Final = 1024 * 1024
"""Longest HTTP/2 frame that is taken. With HTTP/2's default of 16 KiB a batch of events came in
several, and h2 takes its time for each (a sixth of the time of a commit of 256 events). What
a sender can make us hold is bounded by the stream's window, which is larger, in any case."""


class TlsProtocol(asyncio.sslproto.SSLProtocol):
    """Encrypts for one HTTP/2 connection."""

    # Known to asyncio, and not to its stubs.
    _sslobj: ssl.SSLObject
    _process_outgoing: Callable[[], None]
    _loop: asyncio.AbstractEventLoop
    _transport: asyncio.Transport | None
    _on_shutdown_complete: Callable[[BaseException | None], None]

    def __init__(
        self, application: asyncio.Protocol, context: ssl.SSLContext, *, server_side: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done after the handshake, or with the error that ended it."""
        self.failure: BaseException | None = None
        """What broke the connection; with TLS 1.3 a client learns after its handshake that its
        certificate was refused."""
        self._completing = False
        super().__init__(
            loop,
            application,
            context,
            self.ready,
            server_side=server_side,
            ssl_handshake_timeout=HANDSHAKE_S,
        )

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if handshake_exc is not None:
            self._process_outgoing()  # The alert for the other side.
        if not self._completing:
            # trio-asyncio calls back from outside of the loop, where grpclib would not find it.
            self._completing = True
            self._loop.call_soon(self._complete, handshake_exc)

    def _complete(self, handshake_exc: BaseException | None) -> None:
        if self._transport is not None:
            super()._on_handshake_complete(handshake_exc)

    def _fatal_error(self, exc: BaseException, message: str = "") -> None:
        self.failure = exc
        super()._fatal_error(exc, message)

    def _do_shutdown(self) -> None:
        # Each side says goodbye, neither needs to wait for the other's (RFC 8446, 6.1).
        with contextlib.suppress(ssl.SSLError):
            self._sslobj.unwrap()
        self._on_shutdown_complete(None)


class _ClientProtocol(Http2Protocol):
    """The client's end of a connection, which remembers why the server ended it."""

    goaway: int | None = None
    """The error code of the server's last word (RFC 9113, 7)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        process = self.processor.process_connection_terminated

        def terminated(event: ConnectionTerminated) -> None:
            self.goaway = event.error_code
            process(event)

        self.processor.processors[ConnectionTerminated] = terminated


class PeerChannel(Channel):
    """A grpclib channel, with TLS or without, which knows what ended its connection."""

    def __init__(self, to: Address, config: Configuration, context: ssl.SSLContext | None) -> None:
        super().__init__(*to, config=config)
        if context is not None:
            self._scheme = "https"
        self._context = context
        self._secured: TlsProtocol | None = None
        self._dialed: _ClientProtocol | None = None

    @property
    def failure(self) -> BaseException | None:
        """What broke the connection, if something did."""
        return None if self._secured is None else self._secured.failure

    @property
    def wants_tls(self) -> bool:
        """Whether this end has no TLS, and the other one said that it takes nothing else."""
        return self._dialed is not None and self._dialed.goaway == ErrorCodes.INADEQUATE_SECURITY

    async def __connect__(self) -> H2Protocol:
        protocol = await super().__connect__()
        if not hasattr(protocol.processor.connection, "_transport"):
            # grpclib would stumble over a connection that was closed before its first use.
            raise ConnectionResetError("the peer closed the connection at once")
        return protocol

    async def _create_connection(self) -> H2Protocol:
        self._dialed = dialed = _ClientProtocol(Handler(), self._config, self._h2_config)
        context, to = self._context, (self._host, self._port)
        if context is None:
            await self._loop.create_connection(lambda: dialed, *to)
        else:
            # Made when the connection is there: it would complain about one that never came to be.
            transport, self._secured = await self._loop.create_connection(
                lambda: TlsProtocol(dialed, context, server_side=False), *to
            )
            await _shaken(self._secured, transport)
        allow_large_frames(dialed)
        return dialed


def allow_large_frames(protocol: H2Protocol) -> None:
    """Let the other side of a connection that was just made send a message in one HTTP/2 frame."""
    connection = protocol.connection
    if not connection.is_closing():
        sizes: dict[SettingCodes | int, int] = {SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES_MAX}
        connection._connection.update_settings(sizes)
        # From now on, not from the answer on, as h2 has it: a long frame that comes in one piece
        # with the answer is judged before it, and would end the connection.
        connection._connection.max_inbound_frame_size = FRAME_BYTES_MAX
        connection.flush()


async def accept(accepted: socket.socket, application: H2Protocol, context: ssl.SSLContext) -> None:
    """Shake hands on an accepted connection; raises what `ssl` raises, or `OSError`."""
    loop = asyncio.get_running_loop()
    transport, secured = await loop.connect_accepted_socket(
        lambda: TlsProtocol(application, context, server_side=True), accepted
    )
    await _shaken(secured, transport)


async def _shaken(secured: TlsProtocol, transport: asyncio.Transport) -> None:
    try:
        await secured.ready
        if transport.is_closing():
            raise ConnectionResetError("the connection was lost in the handshake")
    except BaseException:
        transport.abort()
        raise


def certificate_of(transport: Any) -> bytes | None:
    """Return the other side's certificate, DER; None on a connection without TLS."""
    secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return None if secured is None else secured.getpeercert(binary_form=True)
