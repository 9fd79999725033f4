"""Length-prefixed frames on one HTTP/2 stream, as gRPC defines them; asyncio.

Enters: grpclib's streams. Leaves: the bytes of whole frames. Never: what is inside a frame.

grpclib itself reads messages of any length that the sender announces (up to 4 GiB), and forgets
where it was when a read is cancelled. Here there is a limit, and a read can be repeated.
"""

import asyncio
from collections.abc import Callable

import grpclib.protocol

from noti.errors import MessageInvalid, PeerUnavailable
from noti.rpc.codec import FRAME_BYTES_MAX
from noti.rpc.direct import PREFIX, Inbox, Wakeup, prefixed, write_at_once


class Frames:
    """One stream's frames, in both directions.

    The `_guarded` methods can be called from any asyncio task: it is woken with an error when the
    stream breaks. The others are for the task that grpclib itself guards.
    """

    def __init__(self, stream: grpclib.protocol.Stream, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._stream = stream
        self._bytes_max = bytes_max
        # Length of the frame whose prefix was read, kept so that a cancelled read can be repeated.
        self._expected_bytes: int | None = None
        self._writing = False

    @property
    def transport(self) -> asyncio.Transport:
        """The connection under it."""
        return self._stream._transport

    async def read(self) -> bytes | None:
        """Return the next frame, or None at the end.

        Raises `MessageInvalid` for one that is too long, compressed, or cut off by the end.
        """
        if self._expected_bytes is None:
            prefix = await self._read_exactly(5)
            if not prefix:
                return None
            compressed, length = PREFIX.unpack(prefix)
            if compressed:
                raise MessageInvalid("a compressed frame, which was not negotiated")
            if length > self._bytes_max:
                raise MessageInvalid(f"a frame of {length} bytes exceeds {self._bytes_max}")
            self._expected_bytes = length
        frame = await self._read_exactly(self._expected_bytes)
        self._expected_bytes = None
        return frame

    async def _read_exactly(self, count: int) -> bytes:
        try:
            return await self._stream.recv_data(count)
        except AssertionError as error:  # grpclib's word for it
            raise MessageInvalid("the stream ended in the middle of a frame") from error

    async def write(self, *frames: bytes) -> None:
        """Write frames; waits while the peer's window or the socket is full."""
        if self._writing:
            raise PeerUnavailable("an earlier frame was cut off by a cancelled send")
        self._writing = True
        await self._stream.send_data(prefixed(frames))
        self._writing = False

    def write_at_once(self, *frames: bytes) -> bool:
        """As `write`, from anywhere in this thread; returns False when it would have to wait."""
        if self._writing:
            raise PeerUnavailable("an earlier frame was cut off by a cancelled send")
        return write_at_once(self._stream, frames)

    def inbox(self, wakeup: Callable[[], Wakeup]) -> Inbox:
        """From now on, have frames passed on as they come, and not read here; see `Inbox`."""
        assert self._expected_bytes is None, "no frame is read in part"
        return Inbox(self._stream, self._bytes_max, wakeup)

    async def read_guarded(self) -> bytes | None:
        """As `read`, from any task."""
        assert self._stream.wrapper is not None
        with self._stream.wrapper:
            return await self.read()

    async def write_guarded(self, *frames: bytes) -> None:
        """As `write`, from any task."""
        assert self._stream.wrapper is not None
        with self._stream.wrapper:
            await self.write(*frames)
