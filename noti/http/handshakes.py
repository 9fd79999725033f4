"""Shakes hands with those who come over HTTPS, and tells those who cannot what is wrong.

The acceptor goes on with a handshake whenever something came of it, as it does with heads: there is
no task for it.
"""

import socket
import ssl
from contextlib import suppress

import structlog

from noti.certificates.rejection_log import RejectionLog
from noti.certificates.rejections import Rejection, handshake_rejection
from noti.certificates.renewal import Current
from noti.descriptors import GREETING_BYTES_MAX, reject
from noti.http.tls_socket import TlsSocket, server_side

log = structlog.get_logger("noti.http")

TLS_RECORD = b"\x16"
"""Begins a TLS handshake, and no request."""

HTTPS_WANTED = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 45\r\nConnection: close\r\n\r\n"
    b"This address speaks HTTPS only: use https://\n"
)


class Handshakes:
    """The handshakes of one listener's connections."""

    def __init__(
        self, tls: Current[ssl.SSLContext], rejections: RejectionLog, *, plain_too: bool = False
    ) -> None:
        """With `plain_too`, who speaks HTTP without TLS is served all the same."""
        self._tls = tls
        self._rejections = rejections
        self._plain_too = plain_too

    def advance(self, sock: socket.socket, peer: str) -> tuple[socket.socket, bool] | None:
        """Go on with a handshake as far as its client has.

        Returns the socket to go on with, and whether the handshake is done, or there will be none.
        None when the connection is closed.
        """
        try:
            if not isinstance(sock, TlsSocket):
                first = sock.recv(1, socket.MSG_PEEK)
                if first and first != TLS_RECORD and self._plain_too:
                    self._rejections.let_pass(peer, _port(sock), "speaks plain HTTP")
                    return sock, True
                if first != TLS_RECORD:
                    self._close_plain(sock, peer, first)
                    return None
                sock = server_side(sock, self._tls.current)
            sock.shake_hands()
        except BlockingIOError:
            return sock, False
        except ssl.SSLError as error:
            self._log(sock, peer, _rejection(error))
        except OSError:
            pass
        except Exception as error:  # noqa: BLE001 - one connection's trouble is nobody else's
            log.error("handshake failed", error=repr(error))
        else:
            return sock, True
        _close_unread(sock)
        return None

    def _close_plain(self, sock: socket.socket, peer: str, first: bytes) -> None:
        if not first:
            sock.close()
            return
        rejection = Rejection("plain", "speaks plain HTTP, and this address takes HTTPS only")
        self._log(sock, peer, rejection)
        reject(sock, HTTPS_WANTED)

    def _log(self, sock: socket.socket, peer: str, rejection: Rejection) -> None:
        self._rejections.log(peer, _port(sock), rejection)


def _port(sock: socket.socket) -> int:
    """Return the port at the other end; 0 when it is gone already."""
    try:
        port: int = sock.getpeername()[1]
    except OSError:
        return 0
    return port


def _close_unread(sock: socket.socket) -> None:
    """Close a connection whose handshake failed; bytes left unread would take the alert back."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.recv(GREETING_BYTES_MAX)
    sock.close()


def _rejection(error: ssl.SSLError) -> Rejection:
    rejection = handshake_rejection(error)
    if rejection.reason == "protocol":  # between nodes only TLS 1.3 will do, and the text says so
        return Rejection("protocol", "speaks no TLS that is still safe: neither 1.2 nor 1.3")
    return rejection
