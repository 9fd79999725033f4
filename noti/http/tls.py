"""A connection over TLS as tasks use it, and as Hypercorn sees it.

Streams over HTTPS/1.1 are the hub's, like plain ones.
"""

import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

import trio

from noti.descriptors import reject
from noti.http.app import App
from noti.http.config import HttpConfig
from noti.http.hypercorn_glue import Connection
from noti.http.tls_socket import TlsSocket, speaks_http_2

T = TypeVar("T")


class TlsStream:
    """A connection over TLS, as tasks use it."""

    def __init__(self, sock: TlsSocket) -> None:
        """The handshake is done. One task may send, while another one receives."""
        self.socket = sock
        self._sends = False
        self._detached = False

    async def send_all(self, data: bytes) -> None:
        """Send; raises `trio.BrokenResourceError`, `ClosedResourceError`, `BusyResourceError`.

        Cancellation: a part may be sent, and nothing else can be sent any more.
        """
        if self._sends:
            raise trio.BusyResourceError("another task is sending")
        self._sends = True
        try:
            if data:
                await self._repeated(self.socket.write, data)
        finally:
            self._sends = False

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive, nothing at the end; raises as `send_all` does."""
        return await self._repeated(self.socket.read, bytes_max)

    async def _repeated(self, operation: Callable[..., T], *args: object) -> T:
        await trio.lowlevel.checkpoint()
        while True:
            if self._detached or self.socket.fileno() < 0:
                raise trio.ClosedResourceError("this connection was closed")
            try:
                return operation(*args)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.socket)
            except OSError as error:
                raise trio.BrokenResourceError("the connection broke") from error

    async def send_eof(self) -> None:
        """Nothing: TLS has no half-closed connections here, closing ends it."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close in order."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close in order, without waiting; who waits for it gets `trio.ClosedResourceError`."""
        if not self._detached and self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def detach(self) -> TlsSocket:
        """Look closed from now on, and return the connection, which goes on elsewhere.

        Raises `OSError` when it is closed.
        """
        if self.socket.fileno() < 0:
            raise OSError("this connection is closed")
        self._detached = True
        trio.lowlevel.notify_closing(self.socket)
        return self.socket


class SecuredConnection(Connection):
    """One TLS connection, for Hypercorn."""

    def __init__(self, sock: TlsSocket, app: App, config: HttpConfig, early: bytes = b"") -> None:
        """See `Connection`."""
        self._secured = TlsStream(sock)
        super().__init__(self._secured, app, config, early)

    @property
    def transport_stream(self) -> TlsStream:
        """For Hypercorn, which asks it for the two addresses."""
        return self._secured

    async def do_handshake(self) -> None:
        """Nothing: it is done."""
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str:
        """Return what was agreed; HTTP/1.1 when nothing was."""
        return self._secured.socket.selected_alpn_protocol() or "http/1.1"

    def reject(self, response: bytes) -> None:
        """Answer and close, without waiting, in HTTP/1.1; HTTP/2 is closed without a word."""
        sock = self._secured.detach()
        if speaks_http_2(sock):
            sock.close()
        else:
            reject(sock, response)

    def _taken_socket(self) -> socket.socket:
        return self._secured.detach()

    def _close_stream(self) -> None:
        self._secured.close()
