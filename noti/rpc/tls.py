"""TLS under the connections of RPC, with errors and alerts that reach people; asyncio.

asyncio has TLS built in, but the version of Python 3.11 closes the connection without the alert
that would tell the other side what is wrong with it, and waits 30 s for a closing alert. Whose
certificate it is that the other side holds is checked elsewhere (`peer_certificates`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from noti.certificates.context import HTTP_2

HANDSHAKE_S: Final = 5
"""A handshake takes two round trips; who is silent for longer holds a connection for nothing."""

READ_BYTES: Final = 256 * 1024
"""More than a TLS record; a read returns one at most."""

Applications: TypeAlias = Mapping[str, asyncio.Protocol]
"""Who speaks what may be spoken on a connection (ALPN); always somebody for HTTP/2."""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """Encrypts for one connection.

    It is a protocol to TCP's transport, and a transport to one of the applications, which learns of
    the connection once the handshake is done.
    """

    def __init__(
        self, applications: Applications, context: ssl.SSLContext, *, server_side: bool
    ) -> None:
        """Where ALPN says nothing, HTTP/2 is spoken."""
        super().__init__()
        self.failure: Exception | None = None
        """What broke the connection; with TLS 1.3 a client learns after its handshake that its
        certificate was rejected."""
        self._applications = applications
        self._spoken = HTTP_2
        self._application: asyncio.Protocol | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._tcp: asyncio.Transport | None = None
        self._handshake: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def shake_hands(self) -> str:
        """Return what is spoken once the handshake is done; otherwise the connection is closed.

        Raises what `ssl` raises, or `ConnectionError`, also for a peer that was too slow.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._handshake
        except ssl.SSLError:
            raise  # It is being closed, and its alert must not be lost.
        except TimeoutError:
            self.abort()
            raise ConnectionAbortedError("the TLS handshake took too long") from None
        except BaseException:
            self.abort()
            raise
        return self._spoken

    # --- what the transport of the TCP connection calls -------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._tcp = transport
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._incoming.write(data)
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if self._application is not None:
            self._application.connection_lost(exc or self.failure)
        self._end_handshake(exc or ConnectionResetError("the connection was lost in the handshake"))

    def pause_writing(self) -> None:
        """See asyncio."""
        if self._application is not None:
            self._application.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._application is not None:
            self._application.resume_writing()

    def _go_on(self) -> None:
        """Do what the bytes that are here allow, and send what TLS has to say."""
        plain: list[bytes] = []
        try:
            if self._application is None:
                self._tls.do_handshake()
                chosen = self._tls.selected_alpn_protocol()
                if chosen is not None and chosen in self._applications:
                    self._spoken = chosen
                self._application = self._applications[self._spoken]
                self._application.connection_made(self)
                self._end_handshake(None)
            while data := self._tls.read(READ_BYTES):
                plain.append(data)
            ended = True
        except ssl.SSLWantReadError:
            ended = False
        except ssl.SSLError as error:
            ended = True
            if not isinstance(error, ssl.SSLZeroReturnError):
                self.failure = error
                self._end_handshake(error)
        self._flush()
        if plain and self._application is not None and not self.is_closing():
            self._application.data_received(b"".join(plain))
        if ended:
            self.close()

    def _flush(self) -> None:
        if self._tcp is not None and (data := self._outgoing.read()):
            self._tcp.write(data)

    def _end_handshake(self, error: Exception | None) -> None:
        if self._handshake.done():
            return
        if error is None:
            self._handshake.set_result(None)
        else:
            self._handshake.set_exception(error)
            self._handshake.exception()  # Nobody may be waiting any more.

    # --- what the application calls ---------------------------------------------------------------

    def write(self, data: Any) -> None:
        """See asyncio."""
        if data and not self.is_closing():
            self._tls.write(data)
            self._flush()

    def pause_reading(self) -> None:
        """See asyncio; what came in the same piece of TCP is still passed on."""
        if self._tcp is not None:
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        if self._tcp is not None:
            self._tcp.resume_reading()

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._tcp is None or self._tcp.is_closing()

    def close(self) -> None:
        """See asyncio.

        Each side says goodbye, neither needs to wait for the other's (RFC 8446, 6.1).
        """
        if self._tcp is not None and not self._tcp.is_closing():
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
            self._tcp.close()

    def abort(self) -> None:
        """See asyncio."""
        if self._tcp is not None:
            self._tcp.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        if name == "ssl_object":
            return self._tls
        return default if self._tcp is None else self._tcp.get_extra_info(name, default)


async def accept(
    accepted: socket.socket, applications: Applications, context: ssl.SSLContext
) -> str:
    """Shake hands on an accepted connection, and return what is spoken there.

    Raises what `ssl` raises, or `ConnectionError`.
    """
    _, secured = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: TlsTransport(applications, context, server_side=True), accepted
    )
    return await secured.shake_hands()


def certificate_of(transport: asyncio.BaseTransport) -> bytes | None:
    """Return the other side's certificate, DER; None on a connection without TLS."""
    secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return None if secured is None else secured.getpeercert(binary_form=True)
