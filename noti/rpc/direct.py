"""Frames on a long-lived stream, taken and given by a Trio task without a turn of the asyncio loop.

Enters: a stream of grpclib's; frames to write. Leaves: frames, as they come.
Never: an asyncio task; back-pressure ignored: what cannot be written at once is refused here, and
what nobody takes is not acknowledged, so that the peer's window fills.

The asyncio loop runs in the same thread as Trio's, so each may call the other's plain functions. A
call that has to wait costs several turns of both schedulers; these do not wait, or wait in Trio.
This halved the time of a commit.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import trio

from noti.errors import MessageInvalid, PeerUnavailable

PREFIX: Final = struct.Struct(">?I")
"""Whether the frame is compressed, and its length."""


def prefixed(frames: Sequence[bytes]) -> bytes:
    """Return frames as they stand on the wire."""
    return b"".join([PREFIX.pack(False, len(frame)) + frame for frame in frames])


def write_at_once(stream: Any, frames: Sequence[bytes]) -> bool:
    """Write frames and return True, unless the socket or the peer's window is full.

    Raises what h2 raises for a stream that has ended.
    """
    connection, h2_connection = stream.connection, stream._h2_connection
    data = prefixed(frames)
    if connection.is_closing():
        raise PeerUnavailable("the connection is closed")
    if not connection.write_ready.is_set():
        return False
    if len(data) > h2_connection.local_flow_control_window(stream.id):
        return False
    piece_bytes = h2_connection.max_outbound_frame_size
    for start in range(0, len(data), piece_bytes):
        h2_connection.send_data(stream.id, data[start : start + piece_bytes])
    stream._transport.write(h2_connection.data_to_send())
    connection.data_send_process()
    return True


class Inbox:
    """Takes the place of a stream's buffer, and so gets its data in the moment they arrive.

    Besides, it stands among the tasks that grpclib cancels when the stream breaks.
    """

    def __init__(self, stream: Any, bytes_max: int) -> None:
        self._stream = stream
        self._bytes_max = bytes_max
        self._data = bytearray()
        self._unacknowledged_bytes = 0
        self._ended = False
        self._failure: PeerUnavailable | None = None
        self._news = trio.Event()
        self._take_over(stream.buffer)
        stream.buffer = self
        stream.wrapper._tasks.add(self)

    # --- what grpclib calls -----------------------------------------------------------------------

    def add(self, data: bytes, ack_size: int) -> None:
        """Take in what came."""
        self._data += data
        self._unacknowledged_bytes += ack_size
        self._news.set()

    def eof(self) -> None:
        """Note that the peer sends no more."""
        self._ended = True
        self._news.set()

    def unacked_size(self) -> int:
        """Return what was not acknowledged, as that will be done now."""
        size, self._unacknowledged_bytes = self._unacknowledged_bytes, 0
        return size

    def cancel(self) -> None:
        """Note that the stream broke."""
        self.close(f"the stream broke: {self._stream.wrapper._error}")

    # --- what the stream's user calls -------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Let nobody wait any more."""
        if self._failure is None:
            self._failure = PeerUnavailable(reason)
        self._news.set()

    async def receive(self) -> bytes | None:
        """Return the next frame, or None at the end.

        Raises `PeerUnavailable` when the stream broke or was closed, `MessageInvalid` for a frame
        that is too long or compressed. *Cancellation* loses nothing.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            self._acknowledge()
            frame = self._next_frame()
            if frame is not None:
                return frame
            if self._ended:
                if self._data:
                    raise PeerUnavailable("the stream ended in the middle of a frame")
                return None
            self._news = trio.Event()
            await self._news.wait()

    def _next_frame(self) -> bytes | None:
        if len(self._data) < PREFIX.size:
            return None
        compressed, length = PREFIX.unpack_from(self._data)
        if compressed:
            raise MessageInvalid("a compressed frame, which was not negotiated")
        if length > self._bytes_max:
            raise MessageInvalid(f"a frame of {length} bytes exceeds {self._bytes_max}")
        end = PREFIX.size + length
        if len(self._data) < end:
            return None
        frame = bytes(memoryview(self._data)[PREFIX.size : end])
        del self._data[:end]
        return frame

    def _acknowledge(self) -> None:
        size = self.unacked_size()
        if size and not self._stream.connection.is_closing():
            self._stream.connection.ack(self._stream.id, size)

    def _take_over(self, buffer: Any) -> None:
        """Take what came before; part of it may be acknowledged already."""
        for acknowledged in buffer._acked:
            self._data += acknowledged.data
        while not buffer._unacked.empty():
            unacknowledged = buffer._unacked.get_nowait()
            self._data += unacknowledged.data
            self._unacknowledged_bytes += unacknowledged.ack_size
        self._ended = buffer._eof
