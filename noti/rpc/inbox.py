"""Takes length-prefixed frames, as gRPC defines them, off a stream in the turn that brought them.

The asyncio loop runs in the same thread as Trio's, so each may call the other's plain functions. A
call that has to wait costs several turns of both schedulers; these do not wait. This took half of
the time of a commit away, and then a fifth of the rest. What nobody takes is not acknowledged, so
that the peer's window fills.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from noti.errors import MessageInvalid

PREFIX: Final = struct.Struct(">?I")
"""Whether the frame is compressed, and its length."""
FRAMES_AT_ONCE: Final = 256
"""Frames passed on before their taker is asked whether it takes more: a window of 4 MiB that filled
while it took none may hold 100,000."""


def prefixed(frames: Sequence[bytes]) -> bytes:
    """Return frames as they stand on the wire."""
    parts: list[bytes] = []
    for frame in frames:
        parts += PREFIX.pack(False, len(frame)), frame
    return b"".join(parts)


class Wakeup(Protocol):
    """A `trio.Event` or an `asyncio.Event`."""

    def set(self) -> None:
        """Let the waiting task go on; may be called from both worlds."""

    async def wait(self) -> object:
        """Wait for it, in its own world."""


class Inbox:
    """The frames that came on one stream; one task reads."""

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        """`acknowledge` lets the peer send so many bytes more."""
        self.bytes_max = 0
        """Longest frame that is taken; set by the reader."""
        self._acknowledge_bytes = acknowledge
        self._data = bytearray()
        self._unacknowledged_bytes = 0
        self._eof = False
        self._ended_by: Exception | None = None
        self._failure: Exception | None = None
        self._take: Callable[[Sequence[bytes]], bool] | None = None
        self._news: Wakeup = asyncio.Event()

    # --- what the connection calls (`add`, `eof` and `unacked_size`: grpclib) ---------------------

    def add(self, data: bytes, ack_size: int) -> None:
        """Take in what came, and pass it on."""
        self._data += data
        self._unacknowledged_bytes += ack_size
        self._pass_on()
        if self._take is None:
            self._news.set()

    def eof(self) -> None:
        """Note that the peer sends no more."""
        self._eof = True
        self._news.set()

    def end(self, error: Exception) -> None:
        """Note that the connection is gone: once all whole frames are taken, reading raises."""
        if not self._eof:
            self._ended_by = error
            self.eof()

    @property
    def held_bytes(self) -> int:
        """What came and was not acknowledged."""
        return self._unacknowledged_bytes

    def unacked_size(self) -> int:
        """Return what was not acknowledged, as that will be done now."""
        size, self._unacknowledged_bytes = self._unacknowledged_bytes, 0
        return size

    # --- what the stream's user calls -------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Let nobody wait any more: reading raises `error`."""
        if self._failure is None:
            self._failure = error
        self._news.set()

    async def read(self) -> bytes | None:
        """Return the next frame, or None at the end; asyncio.

        Raises what `receive` raises. *Cancellation* loses nothing.
        """
        while True:
            frames: list[bytes] = []
            invalid = self._cut(frames, 1)
            if frames:
                return frames[0]
            if invalid is not None:
                raise invalid
            if self._is_ended():
                return None
            self._acknowledge()
            self._news = asyncio.Event()
            await self._news.wait()

    async def receive(
        self, take: Callable[[Sequence[bytes]], bool], wakeup: Callable[[], Wakeup]
    ) -> bool:
        """Pass frames to `take` in the moment that they are there, as long as it returns True.

        Those that came together come in one call, or few. `wakeup` belongs to the world of the
        caller.

        Returns whether the peer may send more: False at the end. What is not taken is not
        acknowledged. Raises what the inbox failed or ended with when the stream broke or was
        closed, `MessageInvalid` for a frame that is too long, compressed or cut off by the end,
        and what `take` raises; then no more is taken.
        *Cancellation* loses nothing: the next call goes on where this one stopped.
        """
        self._take = take
        try:
            self._pass_on()
            while self._take is not None:
                if self._is_ended():
                    return False
                self._news = wakeup()
                await self._news.wait()
            if self._failure is not None:
                raise self._failure
            return True
        finally:
            self._take = None

    def _is_ended(self) -> bool:
        if self._failure is not None:
            raise self._failure
        if self._ended_by is not None:
            raise self._ended_by
        if self._eof and self._data:
            raise MessageInvalid("the stream ended in the middle of a frame")
        return self._eof

    def _pass_on(self) -> None:
        """Never raises: it is not the taker's turn, and grpclib would close the connection."""
        while self._take is not None and self._failure is None:
            frames: list[bytes] = []
            invalid = self._cut(frames, FRAMES_AT_ONCE)
            if len(frames) < FRAMES_AT_ONCE:
                # Not before all is taken: otherwise each turn would let another window full come.
                self._acknowledge()
            try:
                if frames and not self._take(frames):
                    self._take = None
            except Exception as error:  # noqa: BLE001 - `receive` raises it
                self.fail(error)
            if invalid is not None:
                self.fail(invalid)
            if len(frames) < FRAMES_AT_ONCE:
                return

    def _cut(self, frames: list[bytes], count_max: int) -> MessageInvalid | None:
        """Move whole frames out of the data; return what is wrong with the next one."""
        data, start = self._data, 0
        invalid = None
        while len(data) - start >= PREFIX.size and len(frames) < count_max:
            compressed, length = PREFIX.unpack_from(data, start)
            if compressed:
                invalid = MessageInvalid("a compressed frame, which was not negotiated")
                break
            if length > self.bytes_max:
                invalid = MessageInvalid(f"a frame of {length} bytes exceeds {self.bytes_max}")
                break
            end = start + PREFIX.size + length
            if len(data) < end:
                break
            frames.append(bytes(memoryview(data)[start + PREFIX.size : end]))
            start = end
        del data[:start]
        return invalid

    def _acknowledge(self) -> None:
        size = self.unacked_size()
        if size:
            self._acknowledge_bytes(size)
