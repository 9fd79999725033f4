"""Connections that carry nothing but frames of Raft, one stream each; asyncio.

HTTP/2 took a quarter of what a leader computes for a commit, and lends this stream nothing: there
is one on each connection, and TCP has flow control of its own. The frames are those that gRPC
would carry, each behind the same five bytes (`inbox`). Before the first one, each side says which
protocol this is: who answers with anything else, or closes before, is an older node.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Final

from noti.errors import MessageInvalid
from noti.rpc.inbox import Inbox, prefixed

PREFACE: Final = b"NOTI-RAFT\n"
"""Begins with a byte that neither TLS (22) nor HTTP/2 (`P`) begins with."""

HELLO_BYTES_MAX: Final = 64 * 1024
"""Longest frame taken from somebody who is not admitted. A hello has less than 4 KiB."""

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""What is held of a peer's frames, whole ones, that nobody takes, before no more is read; as much
as with gRPC."""

_DEAD_AFTER_S: Final = 10
"""A dead host, which sends no reset, is noticed after so long: when it acknowledges nothing that
was sent, or answers nothing that was asked. (Raft elects without waiting for this; it frees the
connection.) It also ends a connection to a node that is there and reads nothing for so long."""
_ASK_AFTER_S: Final = 5
"""TCP asks when nothing came for so long: between followers, Raft says nothing …"""
_ASK_EVERY_S: Final = 1
"""… and then asks again, so that one lost packet or two end nothing."""

_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASK_AFTER_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_EVERY_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, (_DEAD_AFTER_S - _ASK_AFTER_S) // _ASK_EVERY_S),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_S * 1000),
)
"""asyncio itself sets TCP_NODELAY."""

_CLOSED: Final = "it closed the connection"


class FramesLost(ConnectionError):
    """The connection is gone."""


class FrameConnection(asyncio.Protocol):
    """One connection, on either side. Whoever reads its inbox says how long a frame may be."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.inbox = Inbox(self._acknowledged)
        self.inbox.bytes_max = HELLO_BYTES_MAX
        self._preface_missing = PREFACE
        self._reads = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost_because: str | None = None

    @property
    def is_understood(self) -> bool:
        """Whether the other side has said that it speaks this protocol."""
        return not self._preface_missing

    # --- what the transport calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if (raw := transport.get_extra_info("socket")) is not None:
            for option in _SOCKET_OPTIONS:
                with suppress(OSError):  # of a connection that is gone already
                    raw.setsockopt(*option)
        transport.write(PREFACE)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._preface_missing:
            expected, said = self._preface_missing, data[: len(self._preface_missing)]
            if not expected.startswith(said):
                self.inbox.fail(MessageInvalid("it does not begin as a stream between nodes does"))
                self.transport.abort()
                return
            self._preface_missing = expected[len(said) :]
            data = data[len(said) :]
        self.inbox.add(data, len(data))
        if self.inbox.held_bytes > WINDOW_BYTES and self._reads:
            self._reads = False
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end(_CLOSED if exc is None else str(exc) or type(exc).__name__)
        self._writable.set()

    def eof_received(self) -> None:
        """See asyncio, which closes the connection next."""
        self._end(_CLOSED)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._writable.set()

    def _end(self, reason: str) -> None:
        if self._lost_because is None:
            self._lost_because = reason
            self.inbox.end(FramesLost(reason))

    def _acknowledged(self, _: int) -> None:
        if not self._reads:
            self._reads = True
            self.transport.resume_reading()

    # --- what the stream's user calls -------------------------------------------------------------

    def write_at_once(self, *frames: bytes) -> bool:
        """Write frames, from anywhere in this thread; returns False when the connection is full.

        Raises `FramesLost`.
        """
        self._check()
        if not self._writable.is_set():
            return False
        self.transport.write(prefixed(frames))
        return True

    async def write(self, *frames: bytes) -> None:
        """Write frames as soon as the connection takes them; asyncio.

        Raises `FramesLost`. *Cancellation* leaves none of them written.
        """
        while not self.write_at_once(*frames):
            await self._writable.wait()

    def is_closing(self) -> bool:
        """Whether the connection is gone, or about to be."""
        return self._lost_because is not None or self.transport.is_closing()

    def close(self) -> None:
        """Close the connection once what was written has left."""
        self.transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def _check(self) -> None:
        if self.is_closing():
            raise FramesLost(self._lost_because or "the connection is closed")
