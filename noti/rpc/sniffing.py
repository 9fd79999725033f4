"""Tells by its first bytes what a new connection speaks, and hands it to the server or closes it.

A node with TLS takes no connection without it, unless it is told to, and the other way round. A TLS
handshake begins with 22, HTTP/2 without TLS with `PRI`, and a stream between nodes with `NOTI-RAFT`
(with TLS, ALPN tells the latter two apart). Who calls the wrong way is told in its own language, so
that its operator reads a clear line too; a node comes again with HTTP/2, and is told then.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, SettingsFrame

from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import HTTP_2, RAFT_FRAMES
from noti.certificates.rejection_log import RejectionLog
from noti.certificates.rejections import Rejection, handshake_rejection
from noti.rpc.accepting import GrpcServer
from noti.rpc.frame_connections import PREFACE as RAFT_PREFACE
from noti.rpc.tls import HANDSHAKE_S

log = structlog.get_logger("noti.rpc")

TLS_RECORD: Final = b"\x16"
PREFACE: Final = b"PRI"
RAFT: Final = RAFT_PREFACE[:1]
"""One byte tells, however few have come; the connection looks at the others."""

LINGER_S: Final = 0.5
"""A connection that is closed with unread bytes in it is reset, and the reason would be lost."""

TLS_WANTED: Final = (
    SettingsFrame(0).serialize()
    + GoAwayFrame(
        0,
        error_code=ErrorCodes.INADEQUATE_SECURITY,
        additional_data=b"this node speaks TLS only",
    ).serialize()
)
"""The answer to HTTP/2 without TLS (RFC 9113, 7)."""

NO_TLS_HERE: Final = b"\x15\x03\x03\x00\x02\x02\x46"
"""The answer to TLS where there is none: a fatal alert, protocol_version (RFC 8446, 6)."""


class ProtocolSniffer:
    """Looks at each new connection before HTTP/2 does; Trio."""

    def __init__(
        self,
        asyncio_loop: AsyncioLoop,
        server: GrpcServer,
        context: Callable[[], ssl.SSLContext | None],
        rejections: RejectionLog,
        *,
        plain_too: bool = False,
    ) -> None:
        """`context` gives the one for the next connection, or None on a node without TLS.

        With `plain_too`, connections without TLS are taken all the same.
        """
        self._asyncio_loop = asyncio_loop
        self._server = server
        self._context = context
        self._rejections = rejections
        self._plain_too = plain_too

    async def serve(self, stream: trio.SocketStream) -> None:
        """Hand a new connection to the server, or close it. Never fails for the caller's sake.

        The caller limits how many there are at a time.
        """
        try:
            await self._look_at(stream)
        except (OSError, trio.BrokenResourceError) as error:
            log.debug("connection lost at once", error=str(error))
        except Exception as error:  # noqa: BLE001 - one connection's trouble is nobody else's
            log.warning("connection failed", error=repr(error))
        finally:
            stream.socket.close()

    async def _look_at(self, stream: trio.SocketStream) -> None:
        first = b""
        with trio.move_on_after(HANDSHAKE_S):
            first = await stream.socket.recv(len(PREFACE), socket.MSG_PEEK)
        if not first:
            return
        host, port = stream.socket.getpeername()[:2]
        context = self._context()
        secured = first.startswith(TLS_RECORD)
        if self._plain_too and not secured:
            self._rejections.let_pass(host, port, "speaks plain text")
            context = None
        if context is None and secured:
            self._rejections.log(host, port, Rejection("tls", "speaks TLS, and this node has none"))
            await _part(stream, NO_TLS_HERE)
        elif context is not None and not secured:
            rejection = Rejection("plain", "speaks plain text, and this node takes TLS only")
            self._rejections.log(host, port, rejection)
            await _part(stream, TLS_WANTED if first == PREFACE else b"")
        else:
            try:
                spoken = RAFT_FRAMES if first.startswith(RAFT) else HTTP_2
                descriptor = stream.socket.fileno()
                await self._asyncio_loop.call(self._server.take, descriptor, context, spoken)
            except ssl.SSLError as error:
                self._rejections.log(host, port, handshake_rejection(error))
            except ConnectionError:
                rejection = Rejection(
                    "other", "broke off the TLS handshake, or was too slow with it"
                )
                self._rejections.log(host, port, rejection)


async def _part(stream: trio.SocketStream, answer: bytes) -> None:
    with trio.move_on_after(LINGER_S):
        await stream.send_all(answer)
        await stream.send_eof()
        while await stream.receive_some():
            pass
