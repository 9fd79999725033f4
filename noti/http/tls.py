"""HTTPS: the handshake, and a connection as Hypercorn sees it after that.

A handshake keeps no other connection from being accepted. Streams take the ordinary way here: the
hub, which owns sockets, could not encrypt.
"""

import socket
import ssl

import trio

from noti.certificates.rejection_log import RejectionLog
from noti.certificates.rejections import Rejection, handshake_rejection
from noti.certificates.renewal import Current
from noti.http.app import App
from noti.http.config import HttpConfig
from noti.http.hypercorn_glue import Connection

HANDSHAKE_S = 10.0
"""Two round trips and some arithmetic, also on a bad mobile network."""

TLS_RECORD = b"\x16"
"""Begins a TLS handshake, and no request."""

HTTPS_WANTED = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 45\r\nConnection: close\r\n\r\n"
    b"This address speaks HTTPS only: use https://\n"
)


async def secured(
    stream: trio.SocketStream, tls: Current[ssl.SSLContext], rejections: RejectionLog
) -> "trio.SSLStream[trio.SocketStream] | None":
    """Shake hands; return None, with the connection closed, when that fails or takes too long."""
    host, port = stream.socket.getpeername()[:2]
    rejection = None
    with trio.move_on_after(HANDSHAKE_S):
        first = await stream.socket.recv(1, socket.MSG_PEEK)
        if first == TLS_RECORD:
            encrypted = trio.SSLStream(stream, tls.current, server_side=True, https_compatible=True)
            try:
                await encrypted.do_handshake()
            except trio.BrokenResourceError as error:
                if isinstance(error.__cause__, ssl.SSLError):
                    rejection = _rejection(error.__cause__)
                    # Trio closes without the alert that tells the client what is wrong.
                    await stream.send_all(encrypted._outgoing.read())
            else:
                return encrypted
        elif first:
            rejection = Rejection("plain", "speaks plain HTTP, and this address takes HTTPS only")
            await stream.send_all(HTTPS_WANTED)
            await stream.send_eof()
            await stream.receive_some()  # Bytes left unread would reset the connection.
    if rejection is not None:
        rejections.log(host, port, rejection)
    stream.socket.close()
    return None


def _rejection(error: ssl.SSLError) -> Rejection:
    rejection = handshake_rejection(error)
    if rejection.reason == "protocol":  # between nodes only TLS 1.3 will do, and the text says so
        return Rejection("protocol", "speaks no TLS that is still safe: neither 1.2 nor 1.3")
    return rejection


class SecuredConnection(Connection):
    """One TLS connection."""

    adoptable = False

    def __init__(
        self, stream: "trio.SSLStream[trio.SocketStream]", app: App, config: HttpConfig
    ) -> None:
        super().__init__(stream.transport_stream, app, config)
        self._encrypted = stream

    @property
    def transport_stream(self) -> trio.SocketStream:
        """For Hypercorn, which asks it for the two addresses."""
        return self._encrypted.transport_stream

    async def do_handshake(self) -> None:
        """Nothing: it is done."""
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str:
        """Return what was agreed; HTTP/1.1 when nothing was."""
        return self._encrypted.selected_alpn_protocol() or "http/1.1"

    async def _send(self, data: bytes) -> None:
        await self._encrypted.send_all(data)

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive; raises `trio.BrokenResourceError` when the client breaks TLS."""
        return bytes(await self._encrypted.receive_some(bytes_max))

    async def send_eof(self) -> None:
        """Nothing: TLS has no half-closed connections here, `aclose` closes it."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close in order, within the time limit for sends."""
        with trio.move_on_after(self._config.send_timeout_s):
            await self._encrypted.aclose()
