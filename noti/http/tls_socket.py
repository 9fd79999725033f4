"""A connection over TLS that is used like a non-blocking socket: by the acceptor, by the hub.

Facts of OpenSSL: a write goes through as a whole or not at all, as far as the caller sees; one that
did not must be repeated with the same bytes, to which more may have been added. A read takes one
record: of more than `RECORD_BYTES` none is kept back.
"""

import socket
import ssl
from contextlib import suppress
from typing import Any, Final, Literal, cast

HTTP_2: Final = "h2"
RECORD_BYTES: Final = 16 * 1024
"""The most that one record holds (RFC 8446, 5.1)."""


class TlsSocket(ssl.SSLSocket):
    """The server's side of one TLS connection.

    Whatever it waits for is told as `BlockingIOError`, as with any socket, not as one of the errors
    of `ssl` that would mean the end of a stream; `read` and `write` still say which it is. It
    closes in order, without waiting.
    """

    awaits_room = False
    """Whether the handshake goes on when the client has taken what it was sent."""

    def shake_hands(self) -> None:
        """Go on with the handshake; raises `BlockingIOError` when the client must first do so."""
        self.awaits_room = False
        try:
            self.do_handshake()
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self.awaits_room = True
            raise BlockingIOError from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send these bytes, or raise `BlockingIOError`: then send the same again, or more."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None

    def recv(self, buflen: int = RECORD_BYTES, flags: int = 0) -> bytes:
        """Return what came, empty at the end; raises `BlockingIOError` when all is read.

        With a `buflen` of `RECORD_BYTES` or more, nothing is kept that epoll does not know of.
        """
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Tell the client that nothing more comes, first in TLS, and end that side."""
        self._notify()
        super().shutdown(how)

    def close(self) -> None:
        """Tell the client that nothing more comes, without waiting for it, and close."""
        if self.fileno() >= 0:
            self._notify()
        super().close()

    def _notify(self) -> None:
        """Send close_notify, unless a record is on its way, or TLS is broken or has not begun."""
        with suppress(OSError, ValueError):
            self.unwrap()


def server_side(sock: socket.socket, context: ssl.SSLContext) -> TlsSocket:
    """Return a non-blocking connection as the server's side of TLS, before the handshake.

    The socket's descriptor is the same, in another object. Raises `OSError`.
    """
    context.sslsocket_class = TlsSocket
    secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    return cast("TlsSocket", secured)


def scheme_of(sock: socket.socket) -> Literal["http", "https"]:
    """Return by which scheme a client speaks that has this connection."""
    return "https" if isinstance(sock, TlsSocket) else "http"


def awaits_room(sock: socket.socket) -> bool:
    """Whether a handshake waits until more can be sent."""
    return isinstance(sock, TlsSocket) and sock.awaits_room


def speaks_http_2(sock: socket.socket) -> bool:
    """Whether that was agreed by ALPN."""
    return isinstance(sock, TlsSocket) and sock.selected_alpn_protocol() == HTTP_2
