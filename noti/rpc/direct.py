"""Frames on a long-lived stream, taken and given without a turn of any scheduler.

Enters: a stream of grpclib's; frames to write. Leaves: frames, in the turn that brought them.
Never: a task; back-pressure ignored: what cannot be written at once is refused here, and what
nobody takes is not acknowledged, so that the peer's window fills.

The asyncio loop runs in the same thread as Trio's, so each may call the other's plain functions. A
call that has to wait costs several turns of both schedulers; these do not wait. This took half of
the time of a commit away, and then a fifth of the rest.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from noti.errors import MessageInvalid, PeerUnavailable

PREFIX: Final = struct.Struct(">?I")
"""Whether the frame is compressed, and its length."""
FRAMES_AT_ONCE: Final = 256
"""Frames passed on before their taker is asked whether it takes more: a window of 4 MiB that filled
while it took none may hold 100,000."""


def prefixed(frames: Sequence[bytes]) -> bytes:
    """Return frames as they stand on the wire."""
    return b"".join([PREFIX.pack(False, len(frame)) + frame for frame in frames])


def write_at_once(stream: Any, frames: Sequence[bytes]) -> bool:
    """Write frames and return True, unless the socket or the peer's window is full.

    Raises what h2 raises for a stream that has ended.
    """
    connection = stream.connection
    data = prefixed(frames)
    if connection.is_closing():
        raise PeerUnavailable("the connection is closed")
    if not has_room(stream, data):
        return False
    put(stream, data)
    stream._transport.write(stream._h2_connection.data_to_send())
    connection.data_send_process()
    return True


def has_room(stream: Any, data: bytes) -> bool:
    """Whether the socket and the peer's window take all of it; raises as `write_at_once` does."""
    window_bytes: int = stream._h2_connection.local_flow_control_window(stream.id)
    return stream.connection.write_ready.is_set() and len(data) <= window_bytes


def put(stream: Any, data: bytes) -> None:
    """Hand data to h2, in pieces as long as the peer takes them."""
    piece_bytes = stream._h2_connection.max_outbound_frame_size
    for start in range(0, len(data), piece_bytes):
        stream._h2_connection.send_data(stream.id, data[start : start + piece_bytes])


class Wakeup(Protocol):
    """A `trio.Event` or an `asyncio.Event`."""

    def set(self) -> None:
        """Let whoever waits go on; may be called from both worlds."""

    async def wait(self) -> object:
        """Wait for it, in its own world."""


class Inbox:
    """Takes the place of a stream's buffer, and passes frames on in the moment they arrive.

    Besides, it stands among the tasks that grpclib cancels when the stream breaks.
    """

    def __init__(self, stream: Any, bytes_max: int, wakeup: Callable[[], Wakeup]) -> None:
        """`wakeup` belongs to the world of whoever calls `hear`."""
        self._stream = stream
        self._bytes_max = bytes_max
        self._wakeup = wakeup
        self._data = bytearray()
        self._unacknowledged_bytes = 0
        self._eof = False
        self._failure: Exception | None = None
        self._take: Callable[[Sequence[bytes]], bool] | None = None
        self._news = wakeup()
        self._take_over(stream.buffer)
        stream.buffer = self
        stream.wrapper._tasks.add(self)

    # --- what grpclib calls -----------------------------------------------------------------------

    def add(self, data: bytes, ack_size: int) -> None:
        """Take in what came, and pass it on."""
        self._data += data
        self._unacknowledged_bytes += ack_size
        self._pass_on()

    def eof(self) -> None:
        """Note that the peer sends no more."""
        self._eof = True
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
        self._fail(PeerUnavailable(reason))

    async def hear(self, take: Callable[[Sequence[bytes]], bool]) -> bool:
        """Pass frames to `take`, those that came together in one call (or few), in the moment that
        they are there; as long as it returns True.

        Returns whether the peer may send more: False at the end. What is not taken is not
        acknowledged. Raises `PeerUnavailable` when the stream broke or was closed, `MessageInvalid`
        for a frame that is too long, compressed or cut off by the end, and what `take` raises; then
        no more is taken.
        *Cancellation* loses nothing: the next call goes on where this one stopped.
        """
        self._take = take
        try:
            self._pass_on()
            while True:
                if self._failure is not None:
                    raise self._failure
                if self._take is None:
                    return True
                if self._eof:
                    if self._data:
                        raise MessageInvalid("the stream ended in the middle of a frame")
                    return False
                self._news = self._wakeup()
                await self._news.wait()
        finally:
            self._take = None

    def _pass_on(self) -> None:
        """Never raises: it is not the taker's turn, and grpclib would close the connection."""
        if self._take is None or self._failure is not None:
            return
        while self._take is not None and self._failure is None:
            frames: list[bytes] = []
            flaw = self._cut(frames)
            if len(frames) < FRAMES_AT_ONCE:
                # Not before all is taken: otherwise each turn would let another window full come.
                self._acknowledge()
            try:
                if frames and not self._take(frames):
                    self._take = None
                    self._news.set()
            except Exception as error:  # noqa: BLE001 - `hear` raises it
                self._fail(error)
            if flaw is not None:
                self._fail(flaw)
            if len(frames) < FRAMES_AT_ONCE:
                return

    def _cut(self, frames: list[bytes]) -> MessageInvalid | None:
        """Move whole frames out of the data; return what is wrong with the next one."""
        data, start = self._data, 0
        flaw = None
        while len(data) - start >= PREFIX.size and len(frames) < FRAMES_AT_ONCE:
            compressed, length = PREFIX.unpack_from(data, start)
            if compressed:
                flaw = MessageInvalid("a compressed frame, which was not negotiated")
                break
            if length > self._bytes_max:
                flaw = MessageInvalid(f"a frame of {length} bytes exceeds {self._bytes_max}")
                break
            end = start + PREFIX.size + length
            if len(data) < end:
                break
            frames.append(bytes(memoryview(data)[start + PREFIX.size : end]))
            start = end
        del data[:start]
        return flaw

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._news.set()

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
        self._eof = buffer._eof
