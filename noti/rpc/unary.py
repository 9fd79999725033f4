"""Answers unary calls in one piece, and all that end in one turn together.

grpclib writes to the socket three times for each answer, from the call's own task. When a commit
ends the calls of many publishers, that takes a third of a node's time. What cannot be written at
once, and every failure, is left to grpclib.
"""

import asyncio
from typing import Final

import structlog

from noti.optional import contained
from noti.rpc.connections import PeerConnection, PeerStream
from noti.rpc.inbox import prefixed

log = structlog.get_logger("noti.rpc")

_HEADERS: Final = ((":status", "200"), ("content-type", "application/grpc+proto"))
_TRAILERS: Final = (("grpc-status", "0"),)


class UnaryAnswers:
    """All answers of one service."""

    def __init__(self) -> None:
        self._unsent: dict[PeerConnection, None] = {}

    def write(self, stream: PeerStream, message: bytes, loop: asyncio.AbstractEventLoop) -> bool:
        """Answer the call of a stream and return True, unless that would have to wait.

        May be called from Trio; the bytes leave in the next turn of `loop`. A call that has ended
        already counts as answered: nobody is there.
        """
        connection, number = stream.connection, stream.id
        assert number is not None
        if not stream.closable:
            stream.answered = True
            return True
        data = prefixed([message])
        if not stream.has_room(data):
            return False
        stream.answered = True
        try:
            connection.h2.send_headers(number, _HEADERS)
            stream.put(data)
            connection.h2.send_headers(number, _TRAILERS, end_stream=True)
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
