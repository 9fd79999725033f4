"""Answers unary calls in one piece, and all that end in one turn together.

Enters: grpclib's streams, with what each is answered. Leaves: HTTP/2 frames: headers, message and
status. Never: a failure, which grpclib answers; a wait: what cannot be written at once is left to
grpclib, too.

grpclib writes to the socket three times for each answer, from the call's own task. When a commit
ends the calls of many publishers, that takes a third of a node's time.
"""

import asyncio
from typing import Any, Final

import grpclib.protocol
import structlog

from noti.optional import contained
from noti.rpc.direct import has_room, prefixed, put

log = structlog.get_logger("noti.rpc")

_HEADERS: Final = ((":status", "200"), ("content-type", "application/grpc+proto"))
_TRAILERS: Final = (("grpc-status", "0"),)


class UnaryAnswers:
    """All answers of one service."""

    def __init__(self) -> None:
        self._unsent: dict[grpclib.protocol.Connection, None] = {}

    def write(self, stream: Any, message: bytes, loop: asyncio.AbstractEventLoop) -> bool:
        """Answer the call of a stream and return True, unless that would have to wait.

        May be called from Trio; the bytes leave in the next turn of `loop`. A call that has ended
        already counts as answered: nobody is there.
        """
        connection, h2_connection = stream.connection, stream._h2_connection
        if connection.is_closing() or stream.id not in h2_connection.streams:
            return True
        data = prefixed([message])
        if not has_room(stream, data):
            return False
        try:
            h2_connection.send_headers(stream.id, _HEADERS)
            put(stream, data)
            h2_connection.send_headers(stream.id, _TRAILERS, end_stream=True)
        except Exception as error:  # noqa: BLE001 - the caller is the log, and has no part in this
            log.debug("an answer was not sent", error=repr(error))
            return True  # it ended meanwhile
        if not self._unsent:
            loop.call_soon(self._send)
        self._unsent[connection] = None
        return True

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, {}
        for connection in unsent:
            if not connection.is_closing():
                with contained("rpc stream"):
                    connection.flush()
                    connection.data_send_process()
